"""A directory of models and versions, and what of it is served: models come, are exchanged and go while others serve.

layout.py       directory -> models and their versions
opening.py      version -> warm model, off the event loop and behind what is served
repository.py   loads, exchanges and unloads; remembers what was refused, and why
control.py      what operators may ask for, by any protocol
"""
