"""Tears the newest page of a black box, as a disk does that loses its power in the middle of a write: a few of its
blocks are on the disk, and of the rest nothing."""

import random
import struct
import sys

PAGE, BLOCK = 16 << 10, 512  # watchdog/src/blackbox/slots.rs

with open(sys.argv[1], "r+b") as file:
    whole = file.read()
    pages = [at for at in range(0, len(whole), PAGE) if whole[at : at + 6] == b"MWBBOX"]
    newest = max(pages, key=lambda at: struct.unpack_from("<Q", whole, at + 16))
    (length,) = struct.unpack_from("<I", whole, newest + 12)
    # At least one block of the text is lost.
    kept = random.randrange(1, max(2, (length + 40) // BLOCK)) * BLOCK
    file.seek(newest + kept)
    file.write(bytes(PAGE - kept))
    print("torn: of page %d the first %d of %d bytes are left" % (newest // PAGE, kept, length + 40))
