"""JinaBERT: BERT's layers with ALiBi, which is rebuilt for rows longer than those before, and gated GELU."""

import math

import torch
from torch import nn
from transformers import PretrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput
from transformers.modeling_utils import PreTrainedModel


class JinaBertConfig(PretrainedConfig):
    model_type = "bert"  # as the published one has it

    def __init__(
        self,
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        type_vocab_size=2,
        initializer_range=0.12,
        layer_norm_eps=1e-12,
        position_embedding_type="alibi",
        alibi_starting_size=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.position_embedding_type = position_embedding_type
        self.alibi_starting_size = alibi_starting_size


class JinaBertEmbeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.register_buffer(
            "token_type_ids", torch.zeros((1, config.max_position_embeddings), dtype=torch.long), persistent=False
        )

    def forward(self, input_ids, token_type_ids):
        if token_type_ids is None:
            token_type_ids = self.token_type_ids[:, : input_ids.size(1)].expand(input_ids.shape)
        return self.LayerNorm(self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids))


class JinaBertSelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.num_attention_heads = config.num_attention_heads
        self.attention_head_size = config.hidden_size // config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def transpose_for_scores(self, x):
        return x.view((*x.size()[:-1], self.num_attention_heads, self.attention_head_size)).permute(0, 2, 1, 3)

    def forward(self, hidden_states, attention_mask, bias):
        query = self.transpose_for_scores(self.query(hidden_states))
        key = self.transpose_for_scores(self.key(hidden_states))
        value = self.transpose_for_scores(self.value(hidden_states))
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(self.attention_head_size) + attention_mask
        context = torch.matmul(nn.functional.softmax(scores + bias, dim=-1), value).permute(0, 2, 1, 3).contiguous()
        return context.view((*context.size()[:-2], self.num_attention_heads * self.attention_head_size))


class JinaBertGLUMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.intermediate_size = config.intermediate_size
        self.gated_layers = nn.Linear(config.hidden_size, config.intermediate_size * 2, bias=False)
        self.act = nn.GELU()
        self.wo = nn.Linear(config.intermediate_size, config.hidden_size)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states):
        both = self.gated_layers(hidden_states)
        gated, non_gated = both[:, :, : self.intermediate_size], both[:, :, self.intermediate_size :]
        return self.layernorm(self.wo(self.act(gated) * non_gated) + hidden_states)


class JinaBertLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attention = JinaBertSelfAttention(config)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = JinaBertGLUMLP(config)

    def forward(self, hidden_states, attention_mask, bias):
        context = self.dense(self.attention(hidden_states, attention_mask, bias))
        return self.mlp(self.LayerNorm(context + hidden_states))


class JinaBertEncoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.num_attention_heads = config.num_attention_heads
        self.layer = nn.ModuleList([JinaBertLayer(config) for _ in range(config.num_hidden_layers)])
        size = config.alibi_starting_size or config.max_position_embeddings
        self._current_alibi_size = size
        self.register_buffer("alibi", self.rebuild_alibi_tensor(size), persistent=False)

    def rebuild_alibi_tensor(self, size, device=None):
        def slopes(heads):
            def of_power_of_2(number):
                start = 2 ** (-(2 ** -(math.log2(number) - 3)))
                return [start * start**at for at in range(number)]

            if math.log2(heads).is_integer():
                return of_power_of_2(heads)
            closest = 2 ** math.floor(math.log2(heads))
            return of_power_of_2(closest) + slopes(2 * closest)[0::2][: heads - closest]

        position = torch.arange(size, device=device)
        distance = (
            torch.abs(position[None, :] - position[:, None]).unsqueeze(0).expand(self.num_attention_heads, -1, -1)
        )
        steepness = torch.tensor(slopes(self.num_attention_heads), device=position.device) * -1
        alibi = (steepness.unsqueeze(1).unsqueeze(1) * distance).unsqueeze(0)
        self._current_alibi_size = size
        return alibi

    def forward(self, hidden_states, attention_mask):
        _, seqlen, _ = hidden_states.size()
        if self._current_alibi_size < seqlen:
            self.register_buffer(
                "alibi",
                self.rebuild_alibi_tensor(size=seqlen, device=hidden_states.device).to(hidden_states.dtype),
                persistent=False,
            )
        bias = self.alibi[:, :, :seqlen, :seqlen]
        for layer in self.layer:
            hidden_states = layer(hidden_states, attention_mask, bias)
        return hidden_states


class JinaBertPreTrainedModel(PreTrainedModel):
    config_class = JinaBertConfig
    base_model_prefix = "bert"

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(mean=0.0, std=self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.data.zero_()
        if isinstance(module, JinaBertEncoder):  # a buffer that no file has
            module.alibi = module.rebuild_alibi_tensor(module._current_alibi_size)
        if isinstance(module, JinaBertEmbeddings):
            module.token_type_ids.zero_()


class JinaBertModel(JinaBertPreTrainedModel):
    def __init__(self, config, add_pooling_layer=True):
        super().__init__(config)
        self.embeddings = JinaBertEmbeddings(config)
        self.encoder = JinaBertEncoder(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value):
        self.embeddings.word_embeddings = value

    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, return_dict=None, **kwargs):
        embedded = self.embeddings(input_ids, token_type_ids)
        extended = (1.0 - attention_mask[:, None, None].to(embedded.dtype)) * torch.finfo(embedded.dtype).min
        states = self.encoder(embedded, extended)
        pooled = torch.tanh(self.pooler(states[:, 0])) if self.pooler is not None else None
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=pooled)


class JinaBertForSequenceClassification(JinaBertPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bert = JinaBertModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, return_dict=None, **kwargs):
        pooled = self.bert(input_ids, attention_mask, token_type_ids).pooler_output
        return SequenceClassifierOutput(logits=self.classifier(pooled))
