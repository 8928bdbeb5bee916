// The form: a query against documents, a text against labels; and what came of it.

import { byId, made, say, time } from "./dom.js";
import { ask } from "./server.js";
import { httpCall } from "./snippets.js";

const EXAMPLES = {
  rank: {
    query: "What causes ocean tides?",
    lines: [
      "Seawater is salty because rivers carry dissolved minerals into the ocean.",
      "Wind blowing over the surface of the sea creates waves.",
      "Tides are caused mainly by the gravitational pull of the moon, with a smaller contribution from the sun.",
      "The moon has no atmosphere and its surface is covered with dust and craters.",
      "Spring tides, the highest of the month, occur when the sun and the moon line up and their gravity adds.",
      "A recipe for bread needs flour, water, salt and yeast.",
    ],
  },
  classify: {
    query: "The parcel was meant to arrive on Monday, and nobody answers my calls.",
    lines: ["complaint", "praise", "question about a price", "delivery", "weather"],
  },
};
EXAMPLES.compare = EXAMPLES.rank;

const WORDS = {
  rank: { query: "Query", lines: "Documents", send: "Rank" },
  compare: { query: "Query", lines: "Documents", send: "Compare" },
  classify: { query: "Text", lines: "Labels", send: "Classify" },
};

/** What can be tried with a model; null where this page has no form for it. */
export function taskOf(model) {
  if (model.kind === "bi-encoder") return "compare";
  if (model.kind !== "cross-encoder") return null;
  if (model.classifies) return "classify";
  return model.labels.length === 1 ? "rank" : null;
}

/** The form as a request. */
export function asked() {
  const model = byId("model").value;
  return {
    model,
    task: byId("model").selectedOptions[0]?.dataset.task ?? "rank",
    query: byId("query").value,
    lines: byId("lines").value.split("\n").filter((line) => line.trim()),
    multi: byId("multi").checked,
  };
}

/** Puts the models into the list, and words and examples that suit the chosen one. */
export function offer(models) {
  const select = byId("model");
  const chosen = select.value;
  const able = models.filter(taskOf);
  select.replaceChildren(
    ...able.map((model) => {
      const option = made("option", { text: model.name });
      option.value = model.name;
      option.dataset.task = taskOf(model);
      option.selected = model.name === chosen;
      return option;
    }),
  );
  byId("pick").hidden = able.length < 2;
  byId("send").disabled = !able.length;
  if (!able.length) say(byId("none"), "No loaded model can be tried here: this page ranks, compares and classifies.");
  suit();
}

/** Words, and an example in fields that nobody has touched. */
export function suit() {
  const { task } = asked();
  byId("query-label").textContent = WORDS[task].query;
  byId("lines-label").textContent = WORDS[task].lines;
  byId("send").textContent = WORDS[task].send;
  byId("several").hidden = task !== "classify";
  const shown = { query: byId("query").value, lines: byId("lines").value };
  const known = Object.values(EXAMPLES).map(({ query, lines }) => ({ query, lines: lines.join("\n") }));
  for (const field of ["query", "lines"]) {
    const untouched = !shown[field] || known.some((each) => each[field] === shown[field]);
    if (untouched) byId(field).value = [EXAMPLES[task][field]].flat().join("\n");
  }
}

/** Sends the form and shows what comes. */
export async function send() {
  const request = asked();
  const button = byId("send");
  if (!request.lines.length) return fail(`Give at least one line under ${WORDS[request.task].lines}.`);
  button.disabled = true;
  byId("answer").setAttribute("aria-busy", "true");
  try {
    const found = await ask(...httpCall(request));
    show(scored(request, found.answer), found, request);
  } catch (error) {
    fail(error.message);
  } finally {
    button.disabled = false;
    byId("answer").removeAttribute("aria-busy");
  }
}

/** [{text, score}] best first, of an answer of any of the three calls. */
function scored({ task, lines }, answer) {
  if (task === "rank") return answer.results.map(({ index, relevance_score: score }) => ({ text: lines[index], score }));
  if (task === "classify") return answer.map(({ label, score }) => ({ text: label, score }));
  const [query, ...vectors] = answer.data.map((each) => each.embedding);
  return vectors
    .map((vector, at) => ({ text: lines[at], score: cosine(query, vector) }))
    .sort((a, b) => b.score - a.score);
}

function cosine(a, b) {
  const dot = (x, y) => x.reduce((total, value, at) => total + value * y[at], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b) || 1);
}

function show(rows, { seconds, stages }, { task }) {
  say(byId("none"), "");
  say(byId("failure"), "");
  const scores = rows.map((row) => row.score);
  const within = scores.every((score) => score >= 0 && score <= 1);
  const [low, high] = within ? [0, 1] : [Math.min(...scores), Math.max(...scores)];
  byId("ranking").replaceChildren(
    ...rows.map(({ text, score }, at) => {
      const bar = made("i");
      bar.style.width = `${high > low ? Math.max(1, (100 * (score - low)) / (high - low)) : 100}%`;
      const track = made("span", { name: "track" }, bar);
      track.setAttribute("aria-hidden", "true");
      return made(
        "li",
        {},
        made("span", { name: "rank", text: `${at + 1}.` }),
        made("span", { name: "text", text }),
        made("span", { name: "score", text: score.toFixed(4) }),
        track,
      );
    }),
  );
  byId("ranking").hidden = false;
  const words = { queue: "waiting", tokenize: "tokenising", compute: "computing" };
  const inside = stages.map(([name, spent]) => `${time(spent)} ${words[name] ?? name}`).join(", ");
  const kind = task === "compare" ? " Scores are cosines of the vectors." : "";
  say(byId("times"), `${inside ? `${inside}; ` : ""}${time(seconds)} in all, as this page saw it.${kind}`);
}

function fail(sentence) {
  say(byId("none"), "");
  byId("ranking").hidden = true;
  say(byId("times"), "");
  say(byId("failure"), sentence);
}
