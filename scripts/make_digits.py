"""Make examples/digits.npz from scikit-learn's copy of the digits."""

from pathlib import Path

import numpy as np

TARGET = Path(__file__).parents[1] / "examples" / "digits.npz"


def digits():
    """Return images, (1797, 64) uint8 from 0 to 16, and labels, (1797,) uint8."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images.astype(np.uint8), labels.astype(np.uint8)


def main():
    images, labels = digits()
    # Uncompressed, so that a rank can map its own rows.
    np.savez(TARGET, X=images, y=labels)
    print(f"wrote {TARGET}: {len(labels)} digits, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
