"""Text -> rows of token ids, as the checkpoint's tokenizer would make them.

inputs.py          what a call was given to read: pairs, or single texts
stage.py           where it is tokenised: on the event loop, or on threads
given.py           what callers pass -> lists
encoder.py         text -> token ids -> rows -> padded batches
token_ids.py       ids instead of a text, and the checks of both
pieces.py          the tokens of a text, to be looked at
pair_template.py   a pair as one text, for checkpoints that have a template
cutting.py         where a long text may be cut before it is tokenised
truncation.py      which tokens of a long input are kept
special_tokens.py  the special tokens around a row
rows.py            rows, ready to be padded
assembling.py      rows -> one batch
whole_rows.py      rows of callers who tokenise themselves -> their texts
rules.py           a checkpoint's own rules for text
vocabulary.py      which tokens have an embedding
"""
