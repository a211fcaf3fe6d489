"""Messages between a worker and its compute child: length-prefixed msgpack over a socketpair, bulk data in memfds."""

import mmap
import os
import socket
import struct
from typing import Any, Final

import msgpack

_HEADER: Final = struct.Struct("<IB")
MAX_MESSAGE_BYTES: Final = 64 << 20
MAX_BLOBS: Final = 4

Message = dict[str, Any]


class ChannelClosedError(Exception):
    """The other end is gone."""


class Channel:
    """One end of the socketpair. One thread sends, one receives; a message travels with up to four blobs."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, message: Message, blobs: tuple[bytes | bytearray | memoryview, ...] = ()) -> None:
        """Send one message; each blob is copied once, into a memfd whose descriptor is passed."""
        body = msgpack.packb(message)
        descriptors: list[int] = []
        try:
            descriptors.extend(_to_memfd(blob) for blob in blobs)
            socket.send_fds(self._sock, [_HEADER.pack(len(body), len(blobs))], descriptors)
            self._sock.sendall(body)
        except OSError as error:
            raise ChannelClosedError("the other end is gone") from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def receive(self) -> tuple[Message, list[memoryview]]:
        """Wait for the next message; blobs are read-only views of shared memory, freed with the last reference."""
        try:
            header, descriptors, _, _ = socket.recv_fds(self._sock, _HEADER.size, MAX_BLOBS)
            while header and len(header) < _HEADER.size:
                header += self._sock.recv(_HEADER.size - len(header))
            if not header:
                raise ChannelClosedError("the other end is gone")
            length, n_blobs = _HEADER.unpack(header)
            if length > MAX_MESSAGE_BYTES or n_blobs != len(descriptors):
                raise ChannelClosedError("the other end speaks no protocol of ours")
            body = self._read(length)
        except OSError as error:
            raise ChannelClosedError("the other end is gone") from error
        return msgpack.unpackb(body, strict_map_key=False), [_map(descriptor) for descriptor in descriptors]

    def close(self) -> None:
        """Close this end; the other sees the end of file."""
        self._sock.close()

    def shut_down(self) -> None:
        """Wake whoever waits in :meth:`receive` at either end."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:  # already gone, which is what was wanted
            return

    def _read(self, length: int) -> bytearray:
        body = bytearray(length)
        view = memoryview(body)
        while view:
            n = self._sock.recv_into(view)
            if n == 0:
                raise ChannelClosedError("the other end went away within a message")
            view = view[n:]
        return body


def _to_memfd(blob: bytes | bytearray | memoryview) -> int:
    descriptor = os.memfd_create("sub60", os.MFD_CLOEXEC)
    try:
        view = memoryview(blob).cast("B")
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _map(descriptor: int) -> memoryview:
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(descriptor, size, prot=mmap.PROT_READ))
    finally:
        os.close(descriptor)
