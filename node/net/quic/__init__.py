"""QUIC (`/quic-v1`): a transport over UDP with TLS and streams of its own, on the library qh3.

`library.py` alone touches qh3; an `Endpoint` is one UDP socket, a `Link` one connection on it, and
`Session` and `QuicPump` show it to `Connection` as yamux over TCP is shown.
"""
