"""The order in which a model takes its layers, for a rank whose model fails."""


class Takes:
    """The remaining takes of a pass in which ranks exchange when a layer is taken.

    Ranks exchange a layer's tensors when the model takes them, so all ranks must take
    the same layers in the same order. If the model of one rank raises halfway, this
    class takes the remaining tensors in its place.

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
        """Set the orders.

        Parameters
        ----------
        orders : dict of str to list of (str, int or slice)
            By pass, "forward" or "backward": the kind, "params" or "grads", and index
            of each take of the model.
        kinds : tuple of str
            The kinds in which ranks exchange.
        """
        for name, order in orders.items():
            self._orders[name] = [take for take in order if take[0] in kinds]
        self.is_known = True

    def begin(self, name, times=1):
        """Begin a pass, or ``times`` consecutive passes."""
        self._left, self._done = self._orders[name] * times, 0

    def note(self):
        """Count a take."""
        self._done += 1

    def finish(self, sequences):
        """Take what remains, of ``sequences`` by kind. Collective if anything does."""
        for kind, index in self._left[self._done :]:
            sequences[kind][index]  # noqa: B018: taking it exchanges it
        self._left = []
