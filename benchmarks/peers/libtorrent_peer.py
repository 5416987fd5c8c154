"""One libtorrent process: seeds a file, or fetches it from named seeders, in plain text.

    python libtorrent_peer.py seed FILE TORRENT ADDRESS [--tuned]
    python libtorrent_peer.py get FOLDER TORRENT ADDRESS SEEDER… [--tuned]

Says what happens as one JSON object a line. `get` waits for a line on standard input before it asks
for anything, so that starting up is not part of what is timed.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import libtorrent

PIECE = 1 << 20

QUIET = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_natpmp": False,
    "enable_upnp": False,
    "allow_multiple_connections_per_ip": True,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "alert_mask": libtorrent.alert.category_t.storage_notification,
}
"""Nothing but the transfer. TCP only: its own choice, uTP, moves a tenth as much over loopback."""

PLAIN = {"out_enc_policy": 2, "in_enc_policy": 2}
"""Encryption never, in either direction."""

TUNED = {
    "mixed_mode_algorithm": 0,
    "send_buffer_low_watermark": 1 << 20,
    "send_buffer_watermark": 8 << 20,
    "send_buffer_watermark_factor": 200,
    "max_out_request_queue": 3000,
    "max_allowed_in_request_queue": 3000,
    "request_queue_time": 10,
    "whole_pieces_threshold": 60,
    "max_queued_disk_bytes": 32 << 20,
    "recv_socket_buffer_size": 1 << 20,
    "send_socket_buffer_size": 1 << 20,
    "aio_threads": 4,
    "hashing_threads": 2,
    "file_pool_size": 100,
}
"""What its manual and users name for fast local networks; TCP only, long queues, large buffers."""


def say(**fields: Any) -> None:
    """Print one event."""
    print(json.dumps(fields), flush=True)


def make_torrent(path: Path, target: Path) -> None:
    """Write a v1 torrent of one file."""
    storage = libtorrent.file_storage()
    libtorrent.add_files(storage, str(path))
    made = libtorrent.create_torrent(storage, PIECE, libtorrent.create_torrent.v1_only)
    libtorrent.set_piece_hashes(made, str(path.parent))
    target.write_bytes(libtorrent.bencode(made.generate()))


def main() -> None:
    """Run one peer."""
    tuned = "--tuned" in sys.argv
    what, place, torrent, address, *others = (arg for arg in sys.argv[1:] if arg != "--tuned")
    session = libtorrent.session(
        {**QUIET, **PLAIN, **(TUNED if tuned else {}), "listen_interfaces": f"{address}:0"}
    )
    info = libtorrent.torrent_info(torrent)
    options = libtorrent.add_torrent_params()
    options.ti = info
    flags = libtorrent.torrent_flags
    if what == "seed":
        options.save_path = str(Path(place).parent)
        options.flags = (options.flags & ~(flags.paused | flags.auto_managed)) | flags.seed_mode
    else:
        options.save_path = place
        options.flags = (options.flags | flags.paused) & ~flags.auto_managed
    handle = session.add_torrent(options)
    while not session.is_listening() or not session.listen_port():
        time.sleep(0.01)
    if what == "seed":
        say(event="listening", address=address, port=session.listen_port())
        sys.stdin.read()
        return
    while handle.status().state in (
        libtorrent.torrent_status.checking_files,
        libtorrent.torrent_status.checking_resume_data,
    ):
        time.sleep(0.01)
    say(event="ready")
    sys.stdin.readline()
    handle.resume()
    for other in others:
        host, _, port = other.rpartition(":")
        handle.connect_peer((host, int(port)))
    while not handle.status().is_seeding:
        time.sleep(0.005)
    handle.flush_cache()  # verified is not written: blocks may still wait in its queue
    while not any(isinstance(x, libtorrent.cache_flushed_alert) for x in session.pop_alerts()):
        session.wait_for_alert(100)
    say(event="complete")
    sys.stdin.read()


if __name__ == "__main__":
    main()
