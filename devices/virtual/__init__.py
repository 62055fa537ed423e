"""Virtual devices: real MQTT clients that send what simulated devices would."""
