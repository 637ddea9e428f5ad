"""A text LSTM and an image CNN in one network, trained together from raw inputs.

The classic multimodal network reads text with an LSTM and images with a convolutional network, puts the two vectors
side by side and classifies them. Here it is an estimator with ``fit`` and ``predict``, made in ``make_network``.

The data: some 3,000 characters of 12 scripts. Which script is it, by name ("small letter a with grave", without the
name of the script) and picture? A quarter is left out of the training, and each branch is trained alone as well.

    python examples/plot_text_lstm_image_cnn.py
"""

import argparse
import time
from pathlib import Path

from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split

from skmm import MultimodalNetClassifier
from skmm.datasets import load_glyphs
from skmm.neural_network import ImageBranch, TextBranch


def make_network(**params):
    """Make the network; ``text="drop"`` leaves out its LSTM, ``image="drop"`` its CNN."""
    network = MultimodalNetClassifier(
        [
            ("text", TextBranch("lstm"), "text"),
            ("image", ImageBranch(size=32, channels=(8, 16, 32)), "image"),
        ],
        max_epochs=15,
        batch_size=64,
        learning_rate=0.003,
        class_weight="balanced",
        random_state=0,
    )
    return network.set_params(**params)


def plot(curves, path):
    """Draw the training loss of each network over the epochs."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for name, losses in curves.items():
        ax.plot(range(1, len(losses) + 1), losses, label=name)
    ax.set(xlabel="epoch", ylabel="training loss", yscale="log")
    ax.legend()
    path.parent.mkdir(exist_ok=True)
    fig.savefig(path, dpi=150)
    print(f"\nPicture: {path}")


def main():
    """Train all three, print their balanced accuracy, draw their losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-samples", type=int, help="characters to use (default: all)")
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path(__file__).parent / "output" / "text_lstm_image_cnn.png",
        help="where to write the picture (default: %(default)s)",
    )
    arguments = parser.parse_args()
    X, y = load_glyphs(n_samples=arguments.n_samples, return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, stratify=y, random_state=0)

    print(f"{len(X)} characters, balanced accuracy on a quarter of them (chance: {1 / y.nunique():.2f})\n")
    curves = {}
    for name, left_out in {"both": {}, "text alone": {"image": "drop"}, "image alone": {"text": "drop"}}.items():
        start = time.perf_counter()
        network = make_network(**left_out).fit(X_train, y_train)
        score = balanced_accuracy_score(y_test, network.predict(X_test))
        print(f"{name:12} {score:.3f}  ({time.perf_counter() - start:.0f} s)", flush=True)
        curves[name] = network.loss_curve_
    plot(curves, arguments.picture)


if __name__ == "__main__":
    main()
