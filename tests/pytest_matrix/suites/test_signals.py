"""A suite that uses the signal by which memwatch asks for the end of a test."""

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time


def until(condition):
    while not condition():
        time.sleep(0.01)


def test_of_a_handler_of_its_own():
    heard = []
    before = signal.signal(signal.SIGURG, lambda *_: heard.append(1))
    try:
        os.kill(os.getpid(), signal.SIGURG)
        until(lambda: heard)
    finally:
        signal.signal(signal.SIGURG, before)


def test_of_no_handler():
    os.kill(os.getpid(), signal.SIGURG)
    time.sleep(0.01)


def test_of_a_child():
    code = "import signal; assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_of_urgent_data():
    heard = []
    before = signal.signal(signal.SIGURG, lambda *_: heard.append(1))
    try:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as one:
            other, _ = server.accept()
            with other:
                fcntl.fcntl(other, fcntl.F_SETOWN, os.getpid())
                one.send(b"!", socket.MSG_OOB)
                until(lambda: heard)
    finally:
        signal.signal(signal.SIGURG, before)


def test_of_an_event_loop():
    async def main():
        heard = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGURG, heard.set)
        os.kill(os.getpid(), signal.SIGURG)
        await asyncio.wait_for(heard.wait(), 20)

    asyncio.run(main())


def test_of_a_handler_that_is_left_behind():
    signal.signal(signal.SIGURG, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGURG)
