"""The batches of images that are moved and flipped, of the study of images."""

import numpy as np

from studies.parts.images import run as images_run


def test_augmented_images_are_moved_and_flipped_in_a_new_order_each_epoch():
    x = np.arange(10 * 6 * 6).reshape(10, 6, 6, 1).astype("float32")
    batches = images_run.Augmented((x, np.arange(10)), 4, 2, seed=3)
    assert [len(batches[i][1]) for i in range(len(batches))] == [4, 4, 2]
    ways, orders = set(), set()
    for _ in range(30):
        labels = []
        pairs = [pair for batch in batches for pair in zip(*batch, strict=True)]
        for image, label in pairs:
            padded = np.pad(x[label], ((2, 2), (2, 2), (0, 0)), mode="reflect")
            found = [
                (top, left, flip)
                for top in range(5)
                for left in range(5)
                for flip in (1, -1)
                if (padded[top : top + 6, left : left + 6][:, ::flip] == image).all()
            ]
            assert len(found) == 1
            ways |= {*found}
            labels.append(int(label))
        assert sorted(labels) == list(range(10))
        orders.add(tuple(labels))
        batches.on_epoch_end()
    # 300 draws of 50 ways miss one with probability 0.1.
    assert len(ways) > 45
    assert len(orders) == 30
