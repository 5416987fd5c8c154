"""TLS as libp2p wants it: both sides send one certificate, which proves who they are.

qh3 offers no client certificates on the server's side, so this reaches into its TLS state machine;
`tests/node/net/quic/test_library.py` fails if a release changes what is used here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from qh3 import tls
from qh3._hazmat import Buffer, CryptoError, SignatureError, verify_with_public_key

from ....wire.errors import PeerFault

SIGNATURES: Final = [
    tls.SignatureAlgorithm.ECDSA_SECP256R1_SHA256,
    tls.SignatureAlgorithm.ED25519,
    tls.SignatureAlgorithm.ECDSA_SECP384R1_SHA384,
    tls.SignatureAlgorithm.RSA_PSS_RSAE_SHA256,
]
"""With which a peer may sign the handshake; ours is the first."""

MAX_FLIGHT: Final = 32 * 1024
"""Handshake bytes held until a message is whole: a certificate is at most 8 KiB of it."""

EXPORTER_LABEL: Final = b"EXPORTER-shoal-handshake"
EXPORTER_BYTES: Final = 32


class MutualContext(tls.Context):
    """The TLS state machine of qh3, with a server that asks for a certificate and judges it."""

    judge: Callable[[bytes], None] | None = None
    """Looks at the peer's certificate (DER); its `PeerFault` ends the handshake."""
    fault: PeerFault | None = None
    """Why the handshake was ended."""
    exporter = b""
    """32 bytes that both sides of this handshake know, and nobody else (RFC 8446, 7.5)."""
    _asks_in: Any = None  # where the server's CertificateRequest is about to go
    _seen = 0  # of the client's certificate and its proof

    # The server's flight

    def _server_handle_hello(
        self, input_buf: Any, initial_buf: Any, handshake_buf: Any, onertt_buf: Any
    ) -> None:
        # With this mark qh3 computes the client's Finished when it comes, and not beforehand.
        self._alps_negotiated = True
        self._asks_in = handshake_buf
        super()._server_handle_hello(input_buf, initial_buf, handshake_buf, onertt_buf)

    @property
    def certificate_chain(self) -> list[Any]:
        """What stands behind our certificate: nothing; but in front of it we ask for theirs.

        The server reads this when its Certificate message is about to be laid out, inside the part
        that is hashed as one.
        """
        if self._asks_in is not None:
            buffer, self._asks_in = self._asks_in, None
            _push_certificate_request(buffer)
        return []

    @certificate_chain.setter
    def certificate_chain(self, value: list[Any]) -> None:
        if value:
            raise ValueError("libp2p allows no certificate chain")

    # The client's flight, as the server takes it

    def handle_message(
        self, input_data: bytes, output_buf: dict[tls.Epoch, Any], epoch: int = -1
    ) -> None:
        """Take handshake bytes; see `tls.Context.handle_message`."""
        if len(self._receive_buffer) + len(input_data) > MAX_FLIGHT:
            raise tls.AlertDecodeError("a handshake message is too long")
        if self.state is not tls.State.SERVER_EXPECT_FINISHED:
            super().handle_message(input_data, output_buf, epoch)
            return
        if epoch != tls.Epoch.HANDSHAKE:
            raise tls.AlertUnexpectedMessage("a message at the wrong level")
        self._receive_buffer += input_data
        while len(self._receive_buffer) >= 4:
            length = 4 + int.from_bytes(self._receive_buffer[1:4], "big")
            if len(self._receive_buffer) < length:
                return
            kind, message = self._receive_buffer[0], self._receive_buffer[:length]
            if kind == tls.HandshakeType.FINISHED and self._seen == 2:
                super().handle_message(b"", output_buf, epoch)
                return
            self._receive_buffer = self._receive_buffer[length:]
            if kind == tls.HandshakeType.CERTIFICATE and self._seen == 0:
                self._process_certificate(tls.pull_certificate(Buffer(data=message)))
            elif kind == tls.HandshakeType.CERTIFICATE_VERIFY and self._seen == 1:
                self._check_client(tls.pull_certificate_verify(Buffer(data=message)))
            else:
                raise tls.AlertUnexpectedMessage("no proof of a certificate")
            self.key_schedule.update_hash(message)  # type: ignore[union-attr]
            self._seen += 1

    def _check_client(self, verify: tls.CertificateVerify) -> None:
        if verify.algorithm not in SIGNATURES:
            raise tls.AlertIllegalParameter("a signature that was not asked for")
        assert self._peer_certificate is not None
        assert self.key_schedule is not None
        try:
            verify_with_public_key(
                self._peer_certificate.public_key(),
                verify.algorithm,
                self.key_schedule.certificate_verify_data(b"TLS 1.3, client CertificateVerify"),
                verify.signature,
            )
        except (SignatureError, CryptoError, ValueError) as error:
            raise tls.AlertDecryptError("the certificate's key did not sign this") from error

    # Both sides

    def _process_certificate(self, certificate: tls.Certificate) -> None:
        if len(certificate.certificates) != 1:
            self._refuse(PeerFault("tls-certificate", "not exactly one"))
        if self.judge is not None:
            try:
                self.judge(certificate.certificates[0][0])
            except PeerFault as fault:
                self._refuse(fault)
        super()._process_certificate(certificate)

    def _client_handle_compressed_certificate(self, input_buf: Any) -> None:
        raise tls.AlertUnexpectedMessage("we did not ask for it, and it could be any size")

    def _refuse(self, fault: PeerFault) -> None:
        self.fault = fault
        raise tls.AlertBadCertificate(fault.reason) from fault

    def _setup_traffic_protection(
        self, direction: tls.Direction, epoch: tls.Epoch, label: bytes
    ) -> None:
        if label == b"s ap traffic":  # the transcript ends with the server's Finished
            self.exporter = self._export()
        super()._setup_traffic_protection(direction, epoch, label)

    def _export(self) -> bytes:
        schedule = self.key_schedule
        assert schedule is not None
        empty = schedule.hash_empty_value
        secret = schedule.derive_secret(b"exp master")
        for label, context, length in (
            (EXPORTER_LABEL, empty, schedule.digest_size),
            (b"exporter", empty, EXPORTER_BYTES),
        ):
            secret = tls.hkdf_expand_label(
                algorithm=schedule.algorithm,
                secret=secret,
                label=label,
                hash_value=context,
                length=length,
            )
        return secret


def _push_certificate_request(buffer: Any) -> None:
    buffer.push_uint8(tls.HandshakeType.CERTIFICATE_REQUEST)
    with tls.push_block(buffer, 3):
        tls.push_opaque(buffer, 1, b"")
        with (
            tls.push_block(buffer, 2),
            tls.push_extension(buffer, tls.ExtensionType.SIGNATURE_ALGORITHMS),
        ):
            tls.push_list(buffer, 2, buffer.push_uint16, SIGNATURES)
