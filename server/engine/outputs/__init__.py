"""What the graph gave -> what the caller gets.

heads.py       logits -> scores                 activation.py  by which function
sparse.py      dense rows -> indices and weights
ranking.py     scores -> the order of documents nli.py         logits -> probabilities of candidate labels
vectors.py     cut, unit length, int8, bits     similarity.py  how vectors are compared
"""
