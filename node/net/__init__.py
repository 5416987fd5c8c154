"""Connections: transports, the secured and multiplexed upgrade, dialling, identify, ping."""
