"""Llama whose tokens see the whole row: an embedder, and a reranker with a classifier over pooled states."""

import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel, LlamaPreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, SequenceClassifierOutputWithPast


class LlamaBidirectionalConfig(LlamaConfig):
    model_type = "llama_bidirec"

    def __init__(self, pooling="avg", score_temperature=1.0, **kwargs):
        self.pooling = pooling
        self.score_temperature = score_temperature
        super().__init__(**kwargs)


class LlamaBidirectionalModel(LlamaModel):
    config_class = LlamaBidirectionalConfig

    def __init__(self, config):
        super().__init__(config)
        for layer in self.layers:
            layer.self_attn.is_causal = False

    def _bidirectional_mask(self, attention_mask, dtype):
        if self.config._attn_implementation == "flash_attention_2":
            return attention_mask if attention_mask is not None and 0 in attention_mask else None
        expanded = attention_mask[:, None, None, :].expand(-1, 1, attention_mask.shape[1], -1).to(dtype)
        return (1.0 - expanded).masked_fill((1.0 - expanded).to(torch.bool), torch.finfo(dtype).min)

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, inputs_embeds=None, **kwargs):
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        hidden_states = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            position_ids = torch.arange(hidden_states.shape[1], device=hidden_states.device).unsqueeze(0)
        mask = self._bidirectional_mask(attention_mask, hidden_states.dtype)
        rope = self.rotary_emb(hidden_states, position_ids)
        for layer in self.layers:
            output = layer(hidden_states, attention_mask=mask, position_ids=position_ids, position_embeddings=rope)
            hidden_states = output[0] if isinstance(output, tuple) else output
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden_states))


def pool(states, attention_mask, pool_type):
    states = states.masked_fill(~attention_mask[..., None].bool(), 0.0)
    if pool_type == "avg":
        return states.sum(dim=1) / attention_mask.sum(dim=1)[..., None]
    if pool_type == "cls":
        return states[:, 0]
    if attention_mask[:, -1].sum() == attention_mask.shape[0]:  # padded on the left
        return states[:, -1]
    last = attention_mask.sum(dim=1) - 1
    return states[torch.arange(states.shape[0], device=states.device), last]


class LlamaBidirectionalForSequenceClassification(LlamaPreTrainedModel):
    config_class = LlamaBidirectionalConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = LlamaBidirectionalModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_input_embeddings(self, value):
        self.model.embed_tokens = value

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        pooled = pool(states, attention_mask, self.config.pooling)
        return SequenceClassifierOutputWithPast(logits=self.score(pooled) / self.config.score_temperature)
