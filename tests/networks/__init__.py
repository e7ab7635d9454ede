"""The networks that clients are used in: proxies, TLS, name services, connections that died unnoticed."""
