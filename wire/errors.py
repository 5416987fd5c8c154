"""The two kinds of protocol error: they broke the rules, or we did.

A `PeerFault` ends the stream or connection of the peer that caused it and is counted under its
reason. A `Misuse` is a bug of ours; nothing catches it.
"""


class WireError(Exception):
    """Base of the errors that this folder raises."""


class PeerFault(WireError):
    """What a peer sent breaks a rule of the protocol.

    `reason` is a short, stable slug for counters (`varint-too-long`); `detail` is for people.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class ContentRefused(WireError):
    """A content is damaged, hostile or of a shape that we do not take; no peer is to blame.

    The text says what is wrong in words for the user; the exit code is 4.
    """


class InvalidText(WireError, ValueError):
    """A text that a person or a file gave (a CID, peer id, link, multiaddr) cannot be read."""


class Misuse(WireError):
    """We called a state machine in a way that it does not allow: a bug."""
