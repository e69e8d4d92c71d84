"""A delegate with one habit, as a process of its own that tests can stop, kill and start again.

    python3 delegate_peer.py PORT HABIT NAME

HABIT: good      200 with NAME as body
       slow      the same after 300 ms
       reset     reads the request, then breaks the connection off
       garbage   answers what is no HTTP
       truncate  promises 100 bytes, sends five, ends the connection
"""

import socket
import struct
import sys
import threading
import time


def read_head(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    return data


def answer(connection, habit, name):
    if habit == "slow":
        time.sleep(0.3)
    if habit == "garbage":
        connection.sendall(b"\x00\x01 this is no HTTP \xff\r\n\r\n")
        return False
    if habit == "truncate":
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly ")
        return False
    if habit == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(name), name))
    return True


def serve(connection, habit, name):
    with connection:
        try:
            while read_head(connection) and answer(connection, habit, name):
                pass
        except OSError:
            pass


def main():
    port, habit, name = int(sys.argv[1]), sys.argv[2], sys.argv[3].encode()
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection, habit, name), daemon=True).start()


if __name__ == "__main__":
    main()
