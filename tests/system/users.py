"""Users at work in two folders, and what each of their acts must have left on a disk that lost power since."""

import os
import random
import threading
import time

from twohosts import content

# A time that never comes: nothing says that the act is durable.
NEVER = 1 << 62


class Act:
    """One act of a user: what stands at each path after it (the number of a content, None for nothing), and between
    which positions of the disk's log it happened. After `end` it is durable."""

    __slots__ = ("user", "results", "start", "end", "kind")

    def __init__(self, user, kind, results, start):
        self.user, self.kind, self.results, self.start, self.end = user, kind, results, start, NEVER


class Oracle:
    """All acts, in the order of their begin."""

    def __init__(self, position):
        self.position, self.acts, self.lock, self.next = position, [], threading.Lock(), 0

    def number(self):
        with self.lock:
            self.next += 1
            return self.next

    def begin(self, user, kind, results):
        with self.lock:
            act = Act(user, kind, results, self.position())
            self.acts.append(act)
            return act


def sync_path(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class User(threading.Thread):
    """Edits one folder until told to stop. Files whose names begin with `u-` are never synced by it, all others always,
    unless the whole disk is (`sync_disk`). Its own files lie in `only<number>`, those of both in `shared`."""

    def __init__(self, number, folder, oracle, seed, sync_disk):
        super().__init__(daemon=True)
        self.number, self.folder, self.oracle, self.sync_disk = number, folder, oracle, sync_disk
        self.rng, self.files, self.dirs = random.Random(seed), {}, []
        self.stopped, self.failure, self.names = threading.Event(), None, 0

    def run(self):
        acts = [self.create] * 4 + [self.edit] * 6 + [self.rename] * 2 + [self.delete] * 2
        acts += [self.share] * 5 + [self.rename_dir, self.mode]
        try:
            while not self.stopped.is_set():
                self.rng.choice(acts)()
                time.sleep(self.rng.random() ** 3 * 0.08)
        except Exception as failure:  # whatever it is, the suite must hear of it
            self.failure = failure

    def full(self, path):
        return os.path.join(self.folder, path)

    def finish(self, act, *paths):
        """Makes an act durable, if that is this user's habit with these paths."""
        if not self.sync_disk:
            if any(os.path.basename(path).startswith("u-") for path in act.results):
                return
            for path in paths:
                sync_path(self.full(path))
        act.end = self.oracle.position()

    def size(self):
        return self.rng.choice((40, 300, 4096, 9000, 70_000, 400_000 if self.rng.random() < 0.9 else 2_500_000))

    def fresh_name(self, where, kind):
        self.names += 1
        return f"{where}/{kind}{self.number}-{self.names}"

    def some_file(self):
        return self.rng.choice(sorted(self.files)) if self.files else None

    def create(self):
        if len(self.files) > 60:
            return
        if len(self.dirs) < 4:
            self.dirs.append(self.fresh_name(f"only{self.number}", "d"))
            os.makedirs(self.full(self.dirs[-1]))
        where = self.rng.choice([*self.dirs, f"only{self.number}"])
        self.write(self.fresh_name(where, self.rng.choice(("s-", "s-", "u-"))), in_place=True)

    def write(self, path, in_place, size=None):
        number = self.oracle.number()
        data = content(number, size or self.size())
        name = path if in_place else path + ".new"
        results = {path: number} if in_place else {path: number, name: None}
        act = self.oracle.begin(self.number, "write" if in_place else "save", results)
        full = self.full(name)
        handle = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            half = len(data) // 2
            os.write(handle, data[:half])
            os.write(handle, data[half:])
        finally:
            os.close(handle)
        if not in_place:
            if not path.split("/")[-1].startswith("u-"):
                sync_path(full)
            os.rename(full, self.full(path))
        if not path.startswith("shared/"):
            self.files[path] = number
        self.finish(act, path, os.path.dirname(path))

    def edit(self):
        path = self.some_file()
        if path:
            same = self.rng.random() < 0.5
            size = os.path.getsize(self.full(path)) if same else None
            self.write(path, in_place=self.rng.random() < 0.6, size=size)

    def rename(self):
        path = self.some_file()
        if not path:
            return
        kind = os.path.basename(path)[:2]
        to = self.fresh_name(self.rng.choice(self.dirs or [os.path.dirname(path)]), kind)
        act = self.oracle.begin(self.number, "rename", {path: None, to: self.files[path]})
        os.rename(self.full(path), self.full(to))
        self.files[to] = self.files.pop(path)
        self.finish(act, os.path.dirname(path), os.path.dirname(to))

    def rename_dir(self):
        if not self.dirs:
            return
        old = self.rng.choice(self.dirs)
        new = self.fresh_name(f"only{self.number}", "d")
        inside = {path: new + path[len(old) :] for path in self.files if path.startswith(old + "/")}
        results = dict.fromkeys(inside) | {to: self.files[path] for path, to in inside.items()}
        act = self.oracle.begin(self.number, "rename-dir", results)
        os.rename(self.full(old), self.full(new))
        self.dirs[self.dirs.index(old)] = new
        for path, to in inside.items():
            self.files[to] = self.files.pop(path)
        if not self.sync_disk:
            sync_path(self.full(f"only{self.number}"))
        act.end = self.oracle.position()

    def delete(self):
        path = self.some_file()
        if path and len(self.files) > 10:
            act = self.oracle.begin(self.number, "delete", {path: None})
            os.unlink(self.full(path))
            del self.files[path]
            self.finish(act, os.path.dirname(path))

    def mode(self):
        path = self.some_file()
        if path:
            os.chmod(self.full(path), self.rng.choice((0o644, 0o600, 0o755)))

    def share(self):
        path = f"shared/{self.rng.choice('ssu')}-{self.rng.randrange(6)}"
        if self.rng.random() < 0.15:
            act = self.oracle.begin(self.number, "delete", {path: None})
            try:
                os.unlink(self.full(path))
            except FileNotFoundError:
                pass
            self.finish(act, "shared")
        else:
            self.write_shared(path)

    def write_shared(self, path):
        """The other's deletion may come in between; then there is nothing to sync, and nothing is promised."""
        try:
            self.write(path, in_place=self.rng.random() < 0.5)
        except FileNotFoundError:
            pass


class Expected:
    """What must be in the folder of a host after a power cut at a position of the log."""

    def __init__(self, acts, position):
        self.position, self.of_path = position, {}
        for act in acts:
            if act.start < position:
                for path, number in act.results.items():
                    self.of_path.setdefault(path, []).append((act, number))

    def numbers(self):
        return {number for acts in self.of_path.values() for _, number in acts if number}

    def is_open(self, act):
        """Says whether nobody knows whether the act is on the disk."""
        return act.end > self.position

    def may_be_torn(self, path):
        """Says whether a user was at work there when power was cut, or never says that it is done."""
        return any(self.is_open(act) for act, _ in self.of_path.get(path, ()))

    def allowed(self, path):
        """Returns the numbers of what may stand at a path that one user wrote: the last durable result or a later
        one; None stands for nothing."""
        allowed = {None}
        for act, number in self.of_path[path]:
            if self.is_open(act):
                # A save may stop while its bytes stand beside the path.
                allowed |= {number, *act.results.values()}
            else:
                allowed = {number}
        return allowed

    def newest(self, path):
        """Returns the number of what the newest act left at a path."""
        return self.of_path[path][-1][1]

    def durable_bytes(self):
        """Returns path and number of each durable write that its own user left alone since."""
        for path, acts in self.of_path.items():
            last = {}
            for act, number in acts:
                last[act.user] = (act, number)
            for act, number in last.values():
                if number and not self.is_open(act):
                    yield path, number
