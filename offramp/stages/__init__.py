"""The stages of a run: training, profiling, simulation. Each leaves artefacts for the next."""
