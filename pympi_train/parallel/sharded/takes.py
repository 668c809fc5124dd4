"""The order in which a model takes its layers, for a rank whose model fails."""


class Takes:
    """What is left of a pass in which ranks exchange when a layer is taken.

    Ranks exchange a layer's tensors when the model takes them, so all have to take the
    same layers in the same order. Where the model of one rank raises half way, this
    rank takes what is left in its place.

    Attributes
    ----------
    is_known : bool
        Whether ``expect`` was called.
    """

    def __init__(self):
        self._orders = {"forward": [], "backward": []}
        self.is_known = False
        self._left, self._done = [], 0

    def expect(self, orders, kinds):
        """Take note of the orders.

        Parameters
        ----------
        orders : dict of str to list of (str, int or slice)
            By pass, "forward" or "backward": "params" or "grads", and the index that
            the model took.
        kinds : tuple of str
            Of these two, those in which ranks exchange.
        """
        for name, order in orders.items():
            self._orders[name] = [take for take in order if take[0] in kinds]
        self.is_known = True

    def begin(self, name, times=1):
        """Begin a pass, or so many of them, one after the other."""
        self._left, self._done = self._orders[name] * times, 0

    def note(self):
        """Take note of a take that is done."""
        self._done += 1

    def finish(self, sequences):
        """Take what is left, of ``sequences`` by kind. Collective, if anything is."""
        for kind, index in self._left[self._done :]:
            sequences[kind][index]  # noqa: B018: taking it is what exchanges it
        self._left = []
