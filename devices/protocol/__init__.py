"""The wire protocol: topics, messages, images. ``docs/protocol.md`` describes it."""
