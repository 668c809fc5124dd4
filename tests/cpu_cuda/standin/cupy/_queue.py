"""Streams: queues of work that is done when somebody waits for it."""

from collections import deque


class Stream:
    """As cupy.cuda.Stream; nothing runs before it is waited for."""

    _by_ptr: dict = {}
    null = None

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        if not (null or non_blocking):
            raise NotImplementedError("a stream that waits for the default one")
        self._work, self._done, self._queued = deque(), 0, 0
        self.ptr = 0 if null else max(Stream._by_ptr, default=0) + 1
        Stream._by_ptr[self.ptr] = self

    def _queue(self, call):
        self._queued += 1
        self._work.append(call)

    def _run_until(self, number):
        """Do the first ``number`` pieces of work that were ever queued."""
        while self._done < number:
            call = self._work.popleft()
            self._done += 1
            call()

    def synchronize(self):
        self._run_until(self._queued)

    def wait_event(self, event):
        on, number = event._reached
        if on is not None:
            self._queue(lambda: on._run_until(number))

    def use(self):
        raise NotImplementedError("changing the current stream")


Stream.null = Stream(null=True)


def get_current_stream(device_id=-1):
    return Stream.null


def stream_of(ptr):
    return Stream._by_ptr[ptr]


class Event:
    """As cupy.cuda.Event."""

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self._reached = None, 0

    def record(self, stream=None):
        stream = stream or get_current_stream()
        self._reached = stream, stream._queued

    @property
    def done(self):
        stream, number = self._reached
        return stream is None or stream._done >= number

    def synchronize(self):
        stream, number = self._reached
        if stream is not None:
            stream._run_until(number)
