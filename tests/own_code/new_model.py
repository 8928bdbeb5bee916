"""GTE's encoder: rotary positions, packed projections, gated GELU; rows without padding where a configuration asks."""

import torch
from torch import nn
from transformers import PretrainedConfig
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput
from transformers.modeling_utils import PreTrainedModel

try:
    import xformers.ops as xops
except ImportError:
    xops = None


class NewConfig(PretrainedConfig):
    model_type = "new"

    def __init__(
        self,
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        type_vocab_size=1,
        rope_theta=10000.0,
        rope_scaling=None,
        layer_norm_eps=1e-12,
        unpad_inputs=False,
        use_memory_efficient_attention=False,
        initializer_range=0.12,
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
        self.rope_theta = rope_theta
        self.rope_scaling = rope_scaling
        self.layer_norm_eps = layer_norm_eps
        self.unpad_inputs = unpad_inputs
        self.use_memory_efficient_attention = use_memory_efficient_attention
        self.initializer_range = initializer_range


class IndexFirstAxis(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, indices):
        ctx.save_for_backward(indices)
        ctx.first = states.shape[0]
        return torch.gather(states, 0, indices[:, None].expand(-1, states.shape[1]))

    @staticmethod
    def backward(ctx, gradient):
        (indices,) = ctx.saved_tensors
        full = torch.zeros(ctx.first, gradient.shape[1], dtype=gradient.dtype, device=gradient.device)
        full.scatter_(0, indices[:, None].expand(-1, gradient.shape[1]), gradient)
        return full, None


def unpad_input(states, indices):
    return IndexFirstAxis.apply(states.reshape(-1, states.shape[-1]), indices)


def pad_input(states, indices, rows, length):
    whole = torch.zeros(rows * length, states.shape[-1], dtype=states.dtype, device=states.device)
    whole[indices] = states
    return whole.view(rows, length, -1)


def rotate_half(x):
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


class RotaryEmbedding(nn.Module):
    def __init__(self, dim, max_position_embeddings, base):
        super().__init__()
        self.dim, self.base, self.max_position_embeddings = dim, base, max_position_embeddings
        self._set_cos_sin_cache(max_position_embeddings, torch.get_default_dtype())

    def _set_cos_sin_cache(self, seq_len, dtype):
        self.max_seq_len_cached = seq_len
        self.register_buffer("inv_freq", self._inv_freq(seq_len), persistent=False)
        frequencies = torch.outer(torch.arange(seq_len, dtype=torch.float32), self.inv_freq)
        emb = torch.cat((frequencies, frequencies), dim=-1)
        self.register_buffer("cos_cached", emb.cos().to(dtype), persistent=False)
        self.register_buffer("sin_cached", emb.sin().to(dtype), persistent=False)

    def _inv_freq(self, seq_len):
        return 1.0 / (self.base ** (torch.arange(0, self.dim, 2).float() / self.dim))

    def forward(self, x, seq_len):
        if seq_len > self.max_seq_len_cached:
            self._set_cos_sin_cache(seq_len, x.dtype)
        return self.cos_cached[:seq_len].to(x.dtype), self.sin_cached[:seq_len].to(x.dtype)


class NTKScalingRotaryEmbedding(RotaryEmbedding):
    def __init__(self, dim, max_position_embeddings, base, scaling_factor):
        self.scaling_factor = scaling_factor
        super().__init__(dim, int(max_position_embeddings * scaling_factor), base)

    def _inv_freq(self, seq_len):
        inv_freq = super()._inv_freq(seq_len)
        if seq_len > self.max_position_embeddings / self.scaling_factor:
            inv_freq = inv_freq / self.scaling_factor ** (2 / self.dim)
        return inv_freq


class NewEmbeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        dim = config.hidden_size // config.num_attention_heads
        if config.rope_scaling is None:
            self.rotary_emb = RotaryEmbedding(dim, config.max_position_embeddings, config.rope_theta)
        else:
            factor = config.rope_scaling["factor"]
            self.rotary_emb = NTKScalingRotaryEmbedding(dim, config.max_position_embeddings, config.rope_theta, factor)
        self.type_vocab_size = config.type_vocab_size
        if config.type_vocab_size > 0:
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, input_ids, token_type_ids, unpad_inputs, attention_mask):
        rows, length = input_ids.shape
        indices = None
        if unpad_inputs:
            indices = torch.nonzero(attention_mask.flatten(), as_tuple=False).flatten()
            input_ids = input_ids.flatten()[indices][None]
        embeddings = self.word_embeddings(input_ids)
        position_ids = torch.arange(length, device=input_ids.device)[None].expand(rows, -1)
        if unpad_inputs:
            position_ids = position_ids.flatten()[indices][None]
        cos, sin = self.rotary_emb(embeddings, seq_len=length)
        rope = (cos[position_ids][:, :, None], sin[position_ids][:, :, None])
        if self.type_vocab_size > 0:
            if token_type_ids is None or self.type_vocab_size < 2:
                token_type_ids = torch.zeros_like(input_ids)
            elif unpad_inputs:
                token_type_ids = token_type_ids.flatten()[indices][None]
            embeddings = embeddings + self.token_type_embeddings(token_type_ids)
        return self.LayerNorm(embeddings), rope, indices


class NewAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.num_attention_heads
        self.width = config.hidden_size // config.num_attention_heads
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=True)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=True)
        self.use_memory_efficient_attention = config.use_memory_efficient_attention
        if self.use_memory_efficient_attention:
            assert xops is not None, "please install xformers"

    def forward(self, hidden_states, attention_bias, rope, padding):
        shape = (*hidden_states.shape[:-1], self.heads, self.width)
        packed = self.qkv_proj(hidden_states).split(self.heads * self.width, dim=-1)
        query, key, value = (part.view(shape) for part in packed)
        cos, sin = rope
        query = query * cos + rotate_half(query) * sin
        key = key * cos + rotate_half(key) * sin
        if padding is not None:
            indices, rows, length = padding
            query, key, value = (
                pad_input(part.flatten(2)[0], indices, rows, length).view(rows, length, self.heads, self.width)
                for part in (query, key, value)
            )
        context = self._attention(query, key, value, attention_bias)
        if padding is not None:
            context = unpad_input(context, padding[0])[None]
        return self.o_proj(context)

    def _attention(self, query, key, value, attention_bias):
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        scores = torch.matmul(query, key.transpose(-1, -2)) / self.width**0.5
        if attention_bias is not None:
            scores = scores + attention_bias
        probabilities = nn.functional.softmax(scores, dim=-1)
        context = torch.matmul(probabilities, value).permute(0, 2, 1, 3).contiguous()
        return context.view(*context.shape[:-2], self.heads * self.width)


class NewSdpaAttention(NewAttention):
    def _attention(self, query, key, value, attention_bias):
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        context = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_bias)
        return context.permute(0, 2, 1, 3).flatten(2)


ATTENTION = {"eager": NewAttention, "sdpa": NewSdpaAttention}


class NewGatedMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.intermediate_size = config.intermediate_size
        self.up_gate_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=True)

    def forward(self, hidden_states):
        up, gate = torch.split(self.up_gate_proj(hidden_states), self.intermediate_size, dim=-1)
        return self.down_proj(nn.functional.gelu(gate) * up)


class NewLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        implementation = getattr(config, "_attn_implementation", None) or "eager"
        self.attention = ATTENTION[implementation](config)
        self.mlp = NewGatedMLP(config)
        self.attn_ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp_ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states, attention_bias, rope, padding):
        hidden_states = self.attn_ln(hidden_states + self.attention(hidden_states, attention_bias, rope, padding))
        return self.mlp_ln(hidden_states + self.mlp(hidden_states))


class NewEncoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layer = nn.ModuleList([NewLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, hidden_states, attention_bias, rope, padding):
        for layer in self.layer:
            hidden_states = layer(hidden_states, attention_bias, rope, padding)
        return hidden_states


class NewPreTrainedModel(PreTrainedModel):
    config_class = NewConfig
    base_model_prefix = "new"
    _supports_sdpa = True

    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            module.weight.data.normal_(mean=0.0, std=self.config.initializer_range)
            if module.bias is not None:
                module.bias.data.zero_()
        elif isinstance(module, nn.Embedding):
            module.weight.data.normal_(mean=0.0, std=self.config.initializer_range)
            if module.padding_idx is not None:
                module.weight.data[module.padding_idx].zero_()
        elif isinstance(module, nn.LayerNorm):
            module.bias.data.zero_()
            module.weight.data.fill_(1.0)
        elif isinstance(module, RotaryEmbedding):  # buffers that no file has
            module._set_cos_sin_cache(module.max_seq_len_cached, torch.get_default_dtype())


class NewModel(NewPreTrainedModel):
    def __init__(self, config, add_pooling_layer=False):
        super().__init__(config)
        self.embeddings = NewEmbeddings(config)
        self.encoder = NewEncoder(config)
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value):
        self.embeddings.word_embeddings = value

    def forward(
        self, input_ids=None, attention_mask=None, token_type_ids=None, unpad_inputs=None, return_dict=None, **kwargs
    ):
        rows, length = input_ids.shape
        unpad_inputs = self.config.unpad_inputs if unpad_inputs is None else unpad_inputs
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        hidden_states, rope, indices = self.embeddings(input_ids, token_type_ids, unpad_inputs, attention_mask)
        bias = (1.0 - attention_mask[:, None, None].to(hidden_states.dtype)) * torch.finfo(hidden_states.dtype).min
        padding = (indices, rows, length) if unpad_inputs else None
        hidden_states = self.encoder(hidden_states, bias, rope, padding)
        if unpad_inputs:
            hidden_states = pad_input(hidden_states[0], indices, rows, length)
        return BaseModelOutput(last_hidden_state=hidden_states)


class NewForSequenceClassification(NewPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.new = NewModel(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, return_dict=None, **kwargs):
        states = self.new(input_ids, attention_mask, token_type_ids).last_hidden_state
        return SequenceClassifierOutput(logits=self.classifier(torch.tanh(self.pooler(states[:, 0]))))
