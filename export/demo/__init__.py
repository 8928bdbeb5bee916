"""The demo cross-encoder: a small LoRA adapter over all-MiniLM-L6-v2, and how it is trained and measured.

base.py      where the base weights are, how a cross-encoder is made of them
data.py      readers of the public data sets       splits.py    which texts are for training, which are held out
lexical.py   BM25 over a small corpus
teacher.py   relevance logits from cosine and BM25
mixture.py   the readers' output -> training examples
train.py     python -m pairwire.export.demo.train
evaluate.py  python -m pairwire.export.demo.evaluate
"""
