"""The way of messages: links, TCP, MQTT, and the hops between devices, broker, nodes and tiers."""
