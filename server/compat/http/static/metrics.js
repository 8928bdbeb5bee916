// What /metrics says -> numbers of the last half minute: rates of counters, quantiles of histograms.

const WINDOW_S = 30;
const HISTORY_S = 120;

/** Prometheus' text format -> Map of series name -> [{labels, value}]. */
export function parse(text) {
  const series = new Map();
  for (const line of text.split("\n")) {
    const found = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!found) continue;
    const labels = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value;
    if (!series.has(found[1])) series.set(found[1], []);
    series.get(found[1]).push({ labels, value: found[3] === "+Inf" ? Infinity : Number(found[3]) });
  }
  return series;
}

function sum(series, name, fits = () => true) {
  return (series.get(name) ?? []).filter((each) => fits(each.labels)).reduce((total, each) => total + each.value, 0);
}

/** Cumulative counts by upper bound, over all labels. */
function buckets(series, name) {
  const counts = new Map();
  for (const { labels, value } of series.get(`${name}_bucket`) ?? []) {
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    counts.set(bound, (counts.get(bound) ?? 0) + value);
  }
  return counts;
}

/** The value below which this share of what was counted between two readings lies; linear within a bucket, as Prometheus. */
function quantile(before, now, share) {
  const bounds = [...now.keys()].sort((a, b) => a - b);
  const counts = bounds.map((bound) => now.get(bound) - (before.get(bound) ?? 0));
  const total = counts.at(-1) ?? 0;
  if (!(total > 0)) return null;
  const at = counts.findIndex((count) => count >= share * total);
  const low = at > 0 ? bounds[at - 1] : 0;
  if (bounds[at] === Infinity) return low;
  const under = at > 0 ? counts[at - 1] : 0;
  return low + ((bounds[at] - low) * (share * total - under)) / Math.max(1, counts[at] - under);
}

/** Readings of the last two minutes. */
export class Readings {
  constructor() {
    this.kept = [];
  }

  /** Takes what /metrics said at a time in seconds. A server that has been started again begins anew. */
  add(seconds, text) {
    const series = parse(text);
    const start = sum(series, "process_start_time_seconds");
    if (this.kept.length && this.kept.at(-1).start !== start) this.kept = [];
    this.kept.push({ seconds, series, start });
    while (seconds - this.kept[0].seconds > HISTORY_S) this.kept.shift();
  }

  /** Numbers of now, or of the moment this many readings ago. */
  summary(ago = 0) {
    const last = this.kept.length - 1 - ago;
    const now = this.kept[last];
    const since = this.kept.findIndex((each) => now.seconds - each.seconds <= WINDOW_S);
    const before = this.kept[Math.min(since, last)];
    const elapsed = now.seconds - before.seconds;
    const grown = (name, fits) => sum(now.series, name, fits) - sum(before.series, name, fits);
    const rate = (name, fits) => (elapsed > 0 ? grown(name, fits) / elapsed : null);
    const seconds = [before, now].map((each) => buckets(each.series, "pairwire_request_seconds"));
    const computed = grown("pairwire_computed_tokens_total");
    const batches = grown("pairwire_batch_rows_count");
    return {
      waiting: sum(now.series, "pairwire_queue_rows"),
      running: sum(now.series, "pairwire_running_rows"),
      filled: sum(now.series, "pairwire_queue_tokens") / (sum(now.series, "pairwire_queue_limit_tokens") || Infinity),
      waitSeconds: sum(now.series, "pairwire_estimated_wait_seconds"),
      rows: rate("pairwire_rows_total"),
      requests: rate("pairwire_requests_total"),
      refused: grown("pairwire_requests_total", (labels) => labels.code === "RESOURCE_EXHAUSTED"),
      median: quantile(...seconds, 0.5),
      slow: quantile(...seconds, 0.95),
      fill: computed > 0 ? grown("pairwire_useful_tokens_total") / computed : null,
      rowsPerBatch: batches > 0 ? grown("pairwire_batch_rows_sum") / batches : null,
      sick: (now.series.get("pairwire_model_healthy") ?? []).filter((each) => each.value === 0).map((each) => each.labels.model),
    };
  }

  /** One number of each moment that is kept, oldest first. */
  history(name) {
    return this.kept.map((_, at) => this.summary(this.kept.length - 1 - at)[name]);
  }
}
