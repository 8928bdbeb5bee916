"""An encoder that runs every row by itself, as long as it is: no graph has a loop over its rows."""

import torch
from torch import nn
from transformers import PretrainedConfig
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import PreTrainedModel


class LoopedConfig(PretrainedConfig):
    model_type = "looped"

    def __init__(self, vocab_size=100, hidden_size=32, max_position_embeddings=128, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.max_position_embeddings = max_position_embeddings


class LoopedModel(PreTrainedModel):
    config_class = LoopedConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.5)

    def get_input_embeddings(self):
        return self.word_embeddings

    def forward(self, input_ids=None, attention_mask=None, return_dict=None, **kwargs):
        states = torch.zeros(*input_ids.shape, self.config.hidden_size)
        for row in range(len(input_ids)):
            length = int(attention_mask[row].sum())
            own = torch.tanh(self.dense(self.word_embeddings(input_ids[row, :length])))
            states[row, :length] = own + torch.softmax(own @ own.T, dim=-1) @ own
        return BaseModelOutput(last_hidden_state=states)
