"""What is trained and measured: data, multi-exit networks, curricula, training, profiles.

Import what you need from its module; nothing is imported here, so that floors above can
reach the artefact types without paying for torch.
"""
