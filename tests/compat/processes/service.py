"""An echo service as a super-server runs it: of the connection on descriptors 0 and 1, or of the sockets that LISTEN_FDS passes."""

import os
import socket
import threading


def echo(s: socket.socket) -> None:
    """Send back what comes, until its end."""
    with s:
        while data := s.recv(65536):
            s.sendall(data)


def passed() -> None:
    """Connections of the listener that is descriptor 3, or that connection itself."""
    s = socket.socket(fileno=3)
    if not s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        echo(s)
        return
    while True:
        threading.Thread(target=echo, args=(s.accept()[0],), daemon=True).start()


def standard() -> None:
    """By read and write, as programs do that know nothing of sockets."""
    while data := os.read(0, 65536):
        while data:
            data = data[os.write(1, data) :]


if __name__ == "__main__":
    if os.environ.get("LISTEN_FDS"):
        passed()
    else:
        standard()
