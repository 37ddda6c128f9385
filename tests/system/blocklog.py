"""A disk whose writes and flushes are recorded, and images of what a power cut may have left of it.

The disk is a file that qemu-storage-daemon exports and keeps a log of, in the format of the kernel's dm-log-writes: a
sector that describes the log, then for each write one sector (first sector, sectors, flags, bytes) and its bytes."""

import bisect
import os
import shutil
import struct
import subprocess

from twohosts import Failed, eventually, run

SECTOR = 512
FLUSH, DISCARD, MARK = 1, 4, 8
# What a magic disk may tear a write into: blocks of the file system, or sectors.
PIECES = (4096, 4096, 4096, SECTOR)


class RecordedDisk:
    """A file under which every write and flush is recorded; must be closed."""

    def __init__(self, image, log, export):
        self.log = log
        for name in (log, export):
            open(name, "w").close()
        blockdev = f"driver=file,cache.no-flush=on,filename="
        self.process = subprocess.Popen(
            ["qemu-storage-daemon", "--blockdev", f"{blockdev}{image},node-name=file"]
            + ["--blockdev", f"{blockdev}{log},node-name=log"]
            + ["--blockdev", "driver=blklogwrites,node-name=both,file=file,log=log"]
            + ["--export", f"type=fuse,id=disk,node-name=both,mountpoint={export},writable=on"],
            stdin=subprocess.DEVNULL,
        )
        size = os.stat(image).st_size
        eventually("the disk", lambda: self._is_there(export, size), 10)

    def _is_there(self, export, size):
        if self.process.poll() is not None:
            raise Failed("qemu-storage-daemon ended")
        return os.stat(export).st_size == size

    def position(self):
        """Returns how far the log is, in bytes: all that was written before has its entry below."""
        return os.stat(self.log).st_size

    def close(self):
        self.process.terminate()
        self.process.wait()


class Entry:
    """One write; a flush has no bytes."""

    __slots__ = ("at", "size", "flags", "data_at", "end")

    def __init__(self, at, size, flags, data_at, end):
        self.at, self.size, self.flags, self.data_at, self.end = at, size, flags, data_at, end


def read_log(path):
    """Returns the entries of a log, in order."""
    entries = []
    with open(path, "rb") as file:
        total = os.fstat(file.fileno()).st_size
        sector = struct.unpack("<QQQI", file.read(28))[3]
        at = sector
        while at + sector <= total:
            file.seek(at)
            first, count, flags, _ = struct.unpack("<QQQQ", file.read(32))
            size = 0 if flags & (DISCARD | MARK) else count * sector
            end = at + sector + size
            if end > total:
                break
            if flags & DISCARD:
                raise Failed("the log has discards")
            entries.append(Entry(first * sector, size, flags, at + sector, end))
            at = end
    return entries


class Replay:
    """Makes images of the disk as it may be after a power cut at ever later positions of its log."""

    def __init__(self, base, log):
        self.base, self.log = base, open(log, "rb")
        self.entries = read_log(log)
        self.ends = [entry.end for entry in self.entries]
        self.done = 0

    def close(self):
        self.log.close()

    def writes_from(self, address, begin, end):
        """Returns the positions between `begin` and `end` after writes at or above an address."""
        writes = (entry for entry in self.entries if entry.size and entry.at >= address)
        return [entry.end for entry in writes if begin <= entry.end <= end]

    def _write(self, image, entry, start=0, size=None):
        size = entry.size - start if size is None else size
        self.log.seek(entry.data_at + start)
        os.pwrite(image, self.log.read(size), entry.at + start)

    def cut(self, position, safe_below, share, rng, target):
        """Writes to `target` the disk after a cut at `position`: all writes before the last flush, all writes below
        the address `safe_below`, and of the others each piece with the probability `share`. Returns how many of the
        unflushed pieces there were and how many of them are lost."""
        stop = bisect.bisect_right(self.ends, position)
        flushed = stop
        while flushed > 0 and not self.entries[flushed - 1].flags & FLUSH:
            flushed -= 1
        if flushed < self.done:
            raise Failed("positions must grow")
        with open(self.base, "r+b") as base:
            for entry in self.entries[self.done : flushed]:
                self._write(base.fileno(), entry)
        self.done = flushed
        run("cp", "--sparse=always", "--reflink=auto", self.base, target)
        piece, pieces, lost = rng.choice(PIECES), 0, 0
        with open(target, "r+b") as image:
            for entry in self.entries[flushed:stop]:
                if entry.at < safe_below:
                    self._write(image.fileno(), entry)
                    continue
                for start in range(0, entry.size, piece):
                    pieces += 1
                    if rng.random() < share:
                        self._write(image.fileno(), entry, start, min(piece, entry.size - start))
                    else:
                        lost += 1
        return pieces, lost


def make_disk(image, mib_each, count):
    """Makes an image file of `count` ext4 file systems of so many MiB."""
    with open(image, "wb") as file:
        file.truncate(count * mib_each << 20)
    for number in range(count):
        options = f"offset={number * mib_each << 20},lazy_itable_init=0,lazy_journal_init=0,nodiscard"
        run("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=4", "-E", options, image, str(mib_each << 8))


def mount(image, number, mib_each, place, options=""):
    """Mounts one of the file systems of an image."""
    os.makedirs(place, exist_ok=True)
    where = f"loop,offset={number * mib_each << 20},sizelimit={mib_each << 20}"
    run("mount", "-o", where + options, image, place)


def copy_sparse(source, target):
    run("cp", "--sparse=always", "--reflink=auto", source, target)


def remove(path):
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
