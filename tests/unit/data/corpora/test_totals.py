from __future__ import annotations

import numpy as np
import pytest

from cmarr_lightning.data.corpora.totals import check_totals
from cmarr_lightning.errors import InputError

TOTALS = {"happy": 3, "sad": 2}


@pytest.mark.parametrize("labels", [["happy", "sad", "happy", "", "sad", "happy"], ["sad"] * 4, []])
def test_right_totals_and_parts_of_a_corpus_pass(corpus, labels):
    check_totals(corpus, np.array(labels, dtype=object), TOTALS)


def test_swapped_classes_are_found(corpus):
    labels = np.array(["sad", "sad", "sad", "happy", "happy", "other"], dtype=object)
    with pytest.raises(InputError, match=r"happy 2, sad 3, but the corpus has happy 3, sad 2.*misordered"):
        check_totals(corpus, labels, TOTALS)
