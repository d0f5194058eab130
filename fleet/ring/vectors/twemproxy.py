#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Prints "key server" for each key of standard input as nutcracker maps it.

twemproxy.py DISTRIBUTION HASH HASH_TAG|- PORT[:WEIGHT[:NAME]]...

Starts nutcracker before small servers on 127.0.0.1 that answer every get with
their own name as the value.
"""
import socket, subprocess, sys, tempfile, threading, time, os

distribution, hash_, tag, *servers = sys.argv[1:]
lines = []


def serve(listener, name):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection, name), daemon=True).start()


def answer(connection, name):
    for line in connection.makefile("rb"):
        key = line.split()[1]
        connection.sendall(b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (key, len(name), name))


for server in servers:
    port, weight, name = (server + "::").split(":")[:3]
    weight = weight or "1"
    listener = socket.create_server(("127.0.0.1", int(port)))
    shown = name or "127.0.0.1:" + port
    threading.Thread(target=serve, args=(listener, shown.encode()), daemon=True).start()
    lines.append(f"  - 127.0.0.1:{port}:{weight} {name}".rstrip())

front = socket.create_server(("127.0.0.1", 0))
port = front.getsockname()[1]
front.close()
with tempfile.NamedTemporaryFile("w", suffix=".yml") as conf:
    conf.write(f"pool:\n  listen: 127.0.0.1:{port}\n  hash: {hash_}\n  distribution: {distribution}\n")
    if tag != "-":
        conf.write(f"  hash_tag: \"{tag}\"\n")
    conf.write("  servers:\n" + "\n".join(lines) + "\n")
    conf.flush()
    with socket.create_server(("127.0.0.1", 0)) as free:
        stats = free.getsockname()[1]
    proxy = subprocess.Popen(["nutcracker", "-c", conf.name, "-s", str(stats), "-a", "127.0.0.1"],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                client = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                time.sleep(0.1)
        reader = client.makefile("rb")
        for key in sys.stdin.read().split():
            client.sendall(b"get %s\r\n" % key.encode())
            reader.readline()
            value = reader.readline().strip().decode()
            reader.readline()
            print(key, value)
    finally:
        proxy.terminate()
