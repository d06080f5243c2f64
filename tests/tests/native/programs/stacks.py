"""Touches a new page of memory in each of many different stacks, and says what Python itself knows of each: for a test that compares.

`stacks.py TOUCHES`: waits for a line on its input, touches, prints one JSON object {"stack": pages}, where a stack is what memtrail should call its
Python frames, outermost first, joined by " > "; then waits for the end of its input.
"""
import functools
import json
import mmap
import random
import sys
import threading

PAGE = 4096
STACKS = 720
TOUCHED = {}
LOCK = threading.Lock()
# In Python 3.11 and later code knows the names of the classes and functions that it is in.
HAS_QUALNAMES = sys.version_info >= (3, 11)


def name_of(code):
    return code.co_qualname if HAS_QUALNAMES else code.co_name


def touch(view, at):
    frame, names = sys._getframe(1), []
    line = sys._getframe().f_lineno + 7
    names.append("%s (stacks.py:%d)" % (name_of(sys._getframe().f_code), line))
    while frame is not None:
        file = frame.f_code.co_filename.rsplit("/", 1)[-1]
        names.append("%s (%s:%d)" % (name_of(frame.f_code), file, frame.f_lineno))
        frame = frame.f_back
    stack = " > ".join(reversed(names))
    view[at] = 1
    with LOCK:
        TOUCHED[stack] = TOUCHED.get(stack, 0) + 1


class Walker:
    """Ways to come from one frame to the next."""

    def __init__(self, view, seed):
        self.view = view
        self.random = random.Random(seed)
        self.at = 0

    def walk(self, depth):
        if depth == 0:
            touch(self.view, self.at)
            self.at += PAGE
            return None
        way = self.random.randrange(8)
        return self.ways[way](self, depth - 1)

    def by_call(self, depth):
        return self.walk(
            depth)

    def by_lambda(self, depth):
        return (lambda: self.walk(depth))()

    def by_generator(self, depth):
        def generate():
            yield 1
            yield self.walk(depth)
        return list(generate())

    def by_comprehension(self, depth):
        return [self.walk(depth) for _ in (1,)]

    def by_callback(self, depth):
        # Through C: sorted calls back.
        return sorted([1], key=lambda _: self.walk(depth) or 0)

    def by_partial(self, depth):
        return functools.partial(self.walk, depth)()

    def by_exception(self, depth):
        try:
            raise ValueError
        except ValueError:
            return self.walk(depth)

    def größe(self, depth):
        class Inner:
            def __getattr__(inner, name):
                return self.walk(depth)
        return Inner().anything

    ways = [by_call, by_lambda, by_generator, by_comprehension, by_callback, by_partial, by_exception, größe]


def work(view, touches, seed):
    walker = Walker(view, seed)
    for number in range(touches):
        # As many different ones as the table of stacks has room for.
        walker.random.seed(number % STACKS)
        walker.walk(1 + number % 12)


def main():
    touches, threads = int(sys.argv[1]), 4
    views = [mmap.mmap(-1, touches // threads * PAGE) for _ in range(threads)]
    for view in views:
        # Whole pages: what is touched is what is charged.
        if hasattr(view, "madvise"):
            view.madvise(mmap.MADV_NOHUGEPAGE)
    # What the walks need besides is there before.
    warm = mmap.mmap(-1, 1200 * PAGE)
    work(warm, 1200, 0)
    warm.close()
    TOUCHED.clear()
    print("ready", flush=True)
    sys.stdin.readline()
    others = [threading.Thread(target=work, args=(view, touches // threads, seed)) for seed, view in enumerate(views[1:])]
    for thread in others:
        thread.start()
    work(views[0], touches // threads, 99)
    for thread in others:
        thread.join()
    print(json.dumps(TOUCHED), flush=True)
    sys.stdin.read()


main()
