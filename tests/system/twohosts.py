"""What the suites that break two daemons share: the daemons, contents that tell when they are torn, and comparing
folders. Imported by the suites beside it; standard library only."""

import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time

# How long a condition may take before a suite gives up; a guard and not an expectation.
PATIENCE = 60.0
# Between two looks at a condition.
LOOK = 0.02
# Bytes of the line that each content begins with, the shortest content.
HEADER = 40
OWN = ".p2p-sync"


# Whoever ends a suite early has its mounts and daemons cleaned up all the same.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class Failed(Exception):
    """Something that must hold does not."""


def say(text):
    print(text, flush=True)


def left_out(text):
    """Ends the suite: the machine cannot do it."""
    say(text)
    sys.exit(77)


def need(*commands):
    for command in commands:
        if shutil.which(command) is None:
            left_out(f"needs {command}")


def run(*command):
    """Runs a command that must succeed and returns what it printed."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stdout.strip()}")
    return done.stdout


def eventually(what, condition, patience=PATIENCE):
    """Looks again and again until the condition gives something true, and returns that."""
    end = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise Failed(f"waited {patience:.0f} s for {what}")
        time.sleep(LOOK)


# --- contents


def content(number, size):
    """Returns the content with this number: a line that names number and size, then bytes that follow from them."""
    size = max(size, HEADER)
    line = f"content {number} of {size} bytes".ljust(HEADER - 1).encode() + b"\n"
    return line + random.Random(number * 1_000_003 + size).randbytes(size - HEADER)


def number_of(data):
    """Returns the number of a content; None if it is none, or not whole."""
    words = data[:HEADER].split()
    if len(words) != 5 or words[0] != b"content" or not words[1].isdigit() or not words[3].isdigit():
        return None
    number, size = int(words[1]), int(words[3])
    return number if size == len(data) and content(number, size) == data else None


# --- folders


def tree(folder):
    """Returns what stands in a folder: for each path its kind, permission bits and bytes or target."""
    found = {}
    for base, dirs, files in os.walk(folder):
        if base == folder:
            dirs[:] = [name for name in dirs if name != OWN]
        for name in list(dirs) + files:
            path = os.path.join(base, name)
            info = os.lstat(path)
            mode = info.st_mode & 0o777
            if stat.S_ISLNK(info.st_mode):
                entry = ("link", 0, os.readlink(path).encode())
            elif stat.S_ISDIR(info.st_mode):
                entry = ("dir", mode, b"")
            else:
                with open(path, "rb") as file:
                    entry = ("file", mode, file.read())
            found[os.path.relpath(path, folder)] = entry
    return found


def try_tree(folder):
    """As tree, but None if something went while it was read."""
    try:
        return tree(folder)
    except FileNotFoundError:
        return None


def differences(one, two, most=8):
    """Returns in which paths two trees differ, for people."""
    paths = [path for path in sorted(set(one) | set(two)) if one.get(path) != two.get(path)]
    brief = lambda entry: entry and (entry[0], oct(entry[1]), len(entry[2]), number_of(entry[2]))
    return [f"{path}: {brief(one.get(path))} / {brief(two.get(path))}" for path in paths[:most]]


def kept_numbers(folder):
    """Returns the numbers of the contents that lie in the daemon's own directory: old versions, hidden copies."""
    found = set()
    for base, _, files in os.walk(os.path.join(folder, OWN)):
        for name in files:
            try:
                with open(os.path.join(base, name), "rb") as file:
                    found.add(number_of(file.read()))
            except OSError:
                pass
    return found - {None}


def litter(folder):
    """Returns the names of temporary files."""
    try:
        return sorted(os.listdir(os.path.join(folder, OWN, "tmp")))
    except FileNotFoundError:
        return []


def is_copy(path):
    return " (conflict " in os.path.basename(path)


# --- daemons


class Host:
    """A daemon with its folder, state and socket below one directory."""

    def __init__(self, bin_dir, number, home, port, peer_ports=()):
        self.bin_dir, self.number, self.home, self.port = bin_dir, number, home, port
        self.peers = [f"/ip4/127.0.0.1/tcp/{peer}" for peer in peer_ports]
        self.folder, self.state = os.path.join(home, "folder"), os.path.join(home, "state")
        self.socket, self.log = home + ".socket", home + ".log"
        self.process = None

    def start(self, wrapper=(), wait=True, settings=()):
        """Starts the daemon, below `wrapper` (strace and its options), and waits until it answers."""
        for place in (self.folder, self.state, os.path.join(self.home, "home")):
            os.makedirs(place, exist_ok=True)
        env = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "P2P_SYNC_"))}
        env |= {"HOME": os.path.join(self.home, "home"), "XDG_RUNTIME_DIR": os.path.join(self.home, "home")}
        env |= dict(settings)
        command = [*wrapper, f"{self.bin_dir}/p2p_sync_daemon", "--sync-dir", self.folder, "--state-dir", self.state]
        command += ["--socket", self.socket, "--name", f"host{self.number}", "--no-mdns"]
        command += ["--listen", f"/ip4/127.0.0.1/tcp/{self.port}"]
        for peer in self.peers:
            command += ["--peer", peer]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        if wait:
            eventually(f"host{self.number} to answer", self.answers)

    def answers(self):
        if self.process.poll() is not None:
            raise Failed(f"host{self.number} ended with {self.process.returncode}")
        return self.status() is not None

    def ctl(self, *args, patience=30):
        command = [f"{self.bin_dir}/syncctl", "--socket", self.socket, *args]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience)

    def status(self):
        done = self.ctl("status", "--json")
        return json.loads(done.stdout) if done.returncode == 0 else None

    def is_connected(self):
        status = self.status()
        return status is not None and status["peers"]["connected"] > 0

    def is_in_sync(self):
        return self.ctl("wait", "--for", "in-sync", "--timeout", "100ms").returncode == 0

    def kill(self):
        """Kills it and all that was started with it, if it still runs."""
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process = None

    def stop(self):
        self.process.terminate()
        code = self.process.wait(timeout=PATIENCE)
        self.process = None
        if code != 0:
            raise Failed(f"host{self.number} did not stop cleanly: {code}")

    def end_of_log(self, lines=15):
        try:
            with open(self.log, errors="replace") as file:
                return "".join(file.readlines()[-lines:])
        except FileNotFoundError:
            return ""

    def complaints(self):
        """Returns what the log says of forks, refused events and panics."""
        marks = ("second event", "another history", "has forked", "panicked", "does not continue", "older than what")
        with open(self.log, errors="replace") as file:
            return [line.strip() for line in file if any(mark in line for mark in marks)]


def pair(one, two):
    """Makes a group of two fresh, running daemons."""
    ticket = json.loads(one.ctl("invite", "create", "--json").stdout)["ticket"]
    joined = two.ctl("join", ticket)
    if joined.returncode != 0:
        raise Failed(f"cannot join: {joined.stderr}")


def settle(one, two, patience=PATIENCE):
    """Waits until both are connected, in sync, without temporary files and with equal folders; returns the tree."""
    eventually("the two to connect", lambda: one.is_connected() and two.is_connected(), patience)

    def settled():
        if not (one.is_in_sync() and two.is_in_sync()):
            return None
        first, second = try_tree(one.folder), try_tree(two.folder)
        if first is None or first != second or litter(one.folder) or litter(two.folder):
            return None
        return (first,)

    try:
        return eventually("both to settle", settled, patience)[0]
    except Failed as failed:
        parts = [str(failed)]
        for host in (one, two):
            state = (host.status() or {}).get("folder")
            parts.append(f"host{host.number}: {state} tmp {litter(host.folder)} connected {host.is_connected()}")
        parts += differences(try_tree(one.folder) or {}, try_tree(two.folder) or {})
        raise Failed("; ".join(parts)) from None
