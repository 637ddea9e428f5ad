"""
======================================
A text LSTM and an image CNN, together
======================================

The classic multimodal network reads text with an LSTM and images with a convolutional network, puts the two vectors side
by side and classifies them, all trained together from raw inputs. Here it is an estimator with ``fit`` and ``predict``.

The data are characters of twelve scripts: which one is it, by name ("small letter a with grave", without the script's own
name) and picture?
"""

# %%
# Text and pictures, as they are
# ------------------------------
from sklearn.base import clone
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split

from skmm import MultimodalNetClassifier
from skmm.datasets import load_glyphs
from skmm.neural_network import ImageBranch, TextBranch

X, y = load_glyphs(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, stratify=y, random_state=0)

# %%
# The network
# -----------
# Each branch is a part of the network. The text branch learns its vocabulary and embeddings, the image branch
# brings pictures to 32 x 32 pixels.
net = MultimodalNetClassifier(
    [
        ("text", TextBranch("lstm"), "text"),
        ("image", ImageBranch(size=32, channels=(16, 32, 64)), "image"),
    ],
    max_epochs=12,
    batch_size=64,
    learning_rate=0.003,
    random_state=0,
)
net.fit(X_train, y_train)

# %%
# Alone and together
# ------------------
# Leaving a modality out is a parameter, for networks as for every other estimator of skmm. A balanced accuracy of 1/12
# is chance.
scores = {"both": balanced_accuracy_score(y_test, net.predict(X_test))}
for left_out, name in {"image": "text alone", "text": "image alone"}.items():
    alone = clone(net).set_params(**{left_out: "drop"}).fit(X_train, y_train)
    scores[name] = balanced_accuracy_score(y_test, alone.predict(X_test))
for name, score in scores.items():
    print(f"{name:12} {score:.2f}")

# %%
# The course of the training
# --------------------------
import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(5, 3))
epochs = range(1, net.n_epochs_ + 1)
ax.plot(epochs, net.loss_curve_, label="training")
ax.plot(epochs, [-score for score in net.validation_scores_], label="validation")
ax.set(xlabel="epoch", ylabel="cross-entropy")
ax.legend()
fig.tight_layout()
plt.show()
