"""An edge node: an inference server behind MQTT."""
