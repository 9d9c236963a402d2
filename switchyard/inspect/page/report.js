// The sections of the report, from the JSON in the page. One layer is chosen for the whole page; a section that
// depends on it is drawn again when it changes.
"use strict";

const report = JSON.parse(document.getElementById("data").textContent);
const layers = report.layers, domains = report.domains;
// The page opens at the layer that tells the domains apart best.
const state = { layer: Math.max(0, layers.reduce((best, l, i) => (l.domain.normalised > layers[best].domain.normalised ? i : best), 0)), sample: 0, expert: null, mode: layers.length ? "expert" : "surprise" };
const layerNames = layers.map((l) => l.name);
const shortNames = layers.map((l) => l.name.replace(/^layers?[ .]/, ""));
const widest = d3.max(layers, (l) => l.experts) || 0;
const sections = [];

const figure = (parent, title, note, className) => {
  const box = parent.appendChild(make("figure", className));
  const caption = box.appendChild(make("figcaption", "", title));
  if (note) caption.append(make("small", "", note));
  return box;
};
const absent = (parent, text) => parent.append(make("p", "absent", text));
const expertLabels = (n) => d3.range(n).map(String);
const chosen = () => layers[state.layer];

// {id, title, lead, draw(body), needs: false = also without routed layers}
const section = (id, nav, title, lead, draw) => sections.push({ id, nav, title, lead, draw });

// --- training --------------------------------------------------------------------------------------
section("training", "Training", "How training went", "Loss on the training text and on held-out text, and what else the run logged.", (body) => {
  if (!report.metrics.length) return absent(body, "This model came without a metrics.jsonl, so its training cannot be shown.");
  const grid = body.appendChild(make("div", "grid"));
  const isLoss = (m) => /(^|[._])(loss|ce|cross_entropy|nll)$/.test(m.name) || m.name === "loss";
  const toSeries = (m, i) => ({ name: (m.evaluation ? "held out: " : "") + m.name, colour: seriesColour(i), dash: m.evaluation && /\./.test(m.name),
    width: m.evaluation ? 2.4 : 1.6, points: m.steps.map((s, j) => [s, m.values[j]]) });
  const losses = report.metrics.filter((m) => isLoss(m) && !/\./.test(m.name));
  const byDomain = report.metrics.filter((m) => m.evaluation && /(^|\.)(domains?|by_domain)\./.test(m.name) && !/accuracy|tokens/.test(m.name));
  const rest = report.metrics.filter((m) => !losses.includes(m) && !byDomain.includes(m) && m.values.some((v) => v !== m.values[0]));
  if (losses.length) lineChart(figure(grid, "Loss", "nats a token"), { label: "Loss over training", xTitle: "step", series: losses.map(toSeries) });
  if (byDomain.length) lineChart(figure(grid, "Held-out loss by domain", "nats a token"), { label: "Held-out loss by domain", xTitle: "step",
    series: byDomain.map((m, i) => ({ ...toSeries(m, i), name: m.name.split(".").pop(), dash: false })) });
  if (rest.length) {
    const box = figure(grid, "Everything else that was logged");
    const select = box.appendChild(make("select"));
    select.setAttribute("aria-label", "Quantity");
    rest.forEach((m, i) => select.append(new Option((m.evaluation ? "held out: " : "") + m.name, i)));
    const hold = box.appendChild(make("div"));
    const show = () => {
      state.metric = Math.min(rest.length - 1, Number(select.value));
      hold.replaceChildren();
      lineChart(hold, { label: rest[state.metric].name, xTitle: "step", series: [toSeries(rest[state.metric], 2)] });
    };
    select.value = String(Math.min(rest.length - 1, state.metric || 0));
    select.addEventListener("change", () => { show(); layOut(); });
    show();
  }
});

// --- load ------------------------------------------------------------------------------------------
section("load", "Load", "Who does the work", "How evenly tokens are spread over the experts. 1× is an equal share; an expert far above it is a bottleneck, one far below it is wasted.", (body) => {
  const grid = body.appendChild(make("div", "grid"));
  const ratio = layers.map((l) => { const m = d3.mean(l.load.engaged); return l.load.engaged.map((v) => (m > 0 ? v / m : null)); });
  const now = figure(grid, "Load of every expert now", "on the probe text; a row is a layer, click it to choose it");
  heatMap(now, { rows: shortNames, columns: expertLabels(widest), rowTitle: "layer", columnTitle: "expert", on: state.layer, label: "Load by layer and expert",
    value: (r, c) => ratio[r][c] ?? null, colour: ratioColour(), pick: (r) => choose(r),
    tell: (r, c) => [`${layerNames[r]}, expert ${c}`, ratio[r][c] === undefined ? [["no such expert", ""]] : [["load", times(ratio[r][c])],
      [layers[r].kind === "dense" ? "weight" : "assignments", short(layers[r].load.engaged[c])],
      ...(layers[r].kind === "dense" ? [] : [["computed", short(layers[r].load.admitted[c])]]),
      ...(layers[r].importance && layers[r].kind !== "dense" ? [["sum of probabilities", short(layers[r].importance[c])]] : [])]] });
  ratioKey(now, "the mean");

  const history = chosen().history, over = figure(grid, `Load over training: ${chosen().name}`, "each column is a window of steps");
  if (history && history.steps.length) {
    heatMap(over, { rows: expertLabels(chosen().experts), columns: history.steps.map(short), rowTitle: "expert", columnTitle: "step", cell: 24,
      label: "Load over training", value: (r, c) => history.share[c][r] * chosen().experts, colour: ratioColour(),
      tell: (r, c) => [`expert ${r}, up to step ${whole(history.steps[c])}`, [["load", times(history.share[c][r] * chosen().experts)], ["share", percent(history.share[c][r])]]] });
    ratioKey(over, "the mean");
  } else absent(over, "No routing.jsonl stands beside this model, so only the present load is known.");

  if (layers.some((l) => l.history)) lineChart(figure(grid, "Imbalance over training", "coefficient of variation of the load; 0 = perfectly even"), { label: "Imbalance over training",
    xTitle: "step", zero: true, series: layers.filter((l) => l.history).map((l) => ({ name: l.name, faint: l !== chosen(), colour: l === chosen() ? css("--accent") : css("--soft"),
      points: l.history.steps.map((s, i) => [s, l.history.cv[i]]) })) });
  const table = figure(grid, "Balance in numbers", "on the probe text", layers.some((l) => l.history) ? "" : "wide").appendChild(make("div", "scroll tall")).appendChild(make("table"));
  const head = table.createTHead().insertRow();
  for (const [name, why] of [["layer", ""], ["variation", "standard deviation over mean"], ["busiest", "the busiest expert's load over the mean"], ["Gini", "0 even, 1 all at one expert"],
    ["entropy", "of the load, over its largest value"], ["unused", "experts below 1 % of the mean load"], ["dropped", "assignments without a place"]]) {
    const cell = head.appendChild(make("th", "", name));
    cell.scope = "col";
    cell.title = why;
  }
  const rows = table.createTBody();
  layers.forEach((l, i) => {
    const row = rows.insertRow();
    row.className = i === state.layer ? "on" : "";
    row.addEventListener("click", () => choose(i));
    for (const text of [l.name, d3.format(".2f")(l.load.cv), times(1 + l.load.max_violation), d3.format(".2f")(l.load.gini), percent(l.load.entropy_ratio),
      `${Math.round(l.load.dead_share * l.experts)} of ${l.experts}`, l.kind === "dense" ? "–" : percent(l.load.drop_rate)]) row.insertCell().textContent = text;
  });
});

// --- domains ---------------------------------------------------------------------------------------
section("domains", "Domains", "Experts and domains", "How much more often than by chance an expert serves a domain. Orange: it prefers the domain; blue: it avoids it.", (body) => {
  if (domains.length < 2) return absent(body, "The probe text has a single domain; give several files with --data to compare them.");
  const grid = body.appendChild(make("div", "grid small"));
  // Rows of equal length: as few as fit, then as even as they go.
  const most = Math.max(1, Math.floor(body.clientWidth / Math.max(205, Math.min(380, widest * 5))));
  grid.style.setProperty("--across", Math.ceil(domains.length / Math.ceil(domains.length / most)));
  const ratio = layers.map((l) => l.domain.share.map((row) => row.map((v) => (l.domain.chance > 0 ? v / l.domain.chance : null))));
  domains.forEach((domain, d) => {
    if (!report.tokens_by_domain[d]) return;
    const box = figure(grid, domain, `${whole(report.tokens_by_domain[d])} tokens` + (report.loss_by_domain && report.loss_by_domain[d] !== null ? `, loss ${report.loss_by_domain[d].toFixed(2)}` : ""));
    heatMap(box, { rows: shortNames, columns: expertLabels(widest), rowTitle: "layer", on: state.layer, cell: 26, label: `Experts serving ${domain}`, pick: (r) => choose(r),
      value: (r, c) => ratio[r][d][c] ?? null, colour: ratioColour(),
      tell: (r, c) => [`${domain}: ${layerNames[r]}, expert ${c}`, ratio[r][d][c] === undefined ? [] : [["of the domain's tokens", percent(layers[r].domain.share[d][c])],
        ["by chance", percent(layers[r].domain.chance)], ["ratio", times(ratio[r][d][c])]]] });
  });
  ratioKey(body, "chance");
  const more = body.appendChild(make("div", "grid"));
  more.style.marginTop = "1rem";
  barChart(figure(more, "What an expert's number says about the domain", "mutual information, as a share of the most it could be; the mark is what shuffled documents give"), {
    label: "Mutual information by layer", format: percent, on: state.layer, pick: choose,
    bars: layers.map((l) => ({ name: l.name, value: l.domain.normalised, mark: l.domain.chance_normalised, tell: [["information", short(l.domain.information) + " nats"],
      ["normalised", percent(l.domain.normalised)], ["by chance", percent(l.domain.chance_normalised)], ["chance, 99th percentile", short(l.domain.chance_high) + " nats"], ["p-value", short(l.domain.p_value)]] })) });
  const far = figure(more, `How differently domains are routed: ${chosen().name}`, `total variation: 0 = the same experts, 100 % = none in common; ${percent(chosen().domain.mean_variation)} on average, chance stays below ${percent(chosen().domain.chance_variation_high)}`);
  const farthest = d3.max(chosen().domain.variation.flat()) || 1;
  heatMap(far, { rows: domains, columns: domains, cell: 40, label: "Distance between domains", value: (r, c) => chosen().domain.variation[r][c], colour: amountColour(farthest),
    tell: (r, c) => [`${domains[r]} and ${domains[c]}`, [["total variation", percent(chosen().domain.variation[r][c])]]] });
  amountKey(far, farthest, percent);
});

// --- tokens ----------------------------------------------------------------------------------------
section("tokens", "Tokens", "Experts and words", "The tokens that go to one expert more faithfully than to any other, and how far routing simply follows the token.", (body) => {
  const l = chosen(), list = body.appendChild(make("div", "experts"));
  const total = d3.sum(l.load.engaged);
  const order = d3.range(l.experts).sort((a, b) => (l.token.favourites[b].length > 0) - (l.token.favourites[a].length > 0) || a - b);
  const shown = state.allExperts ? order : order.slice(0, 16);
  for (const e of shown) {
    const card = list.appendChild(make("div", "expert")), head = card.appendChild(make("h3"));
    head.appendChild(make("i", "dot")).style.background = expertColour(e, l.experts);
    head.append(`Expert ${e}`);
    head.append(make("span", "", total > 0 ? percent(l.load.engaged[e] / total) + " of the load" : ""));
    const chips = card.appendChild(make("div", "chips"));
    if (!l.token.favourites[e].length) chips.append(make("span", "none", "no token prefers it"));
    for (const t of l.token.favourites[e]) {
      const chip = chips.appendChild(make("span", "chip", visible(t.token)));
      const tint = d3.rgb(expertColour(e, l.experts));
      tint.opacity = 0.12 + 0.35 * t.share;
      chip.style.background = tint;
      chip.addEventListener("pointermove", (event) => showTip(event.clientX, event.clientY, visible(t.token), [["goes here", percent(t.share)], ["occurrences", whole(t.count)], ["over this expert's load", times(t.lift)]]));
      chip.addEventListener("pointerleave", hideTip);
    }
  }
  if (order.length > 16) {
    const more = body.appendChild(make("button", "", state.allExperts ? "Show fewer experts" : `Show all ${order.length} experts`));
    more.type = "button";
    more.style.marginTop = ".8rem";
    more.addEventListener("click", () => { state.allExperts = !state.allExperts; redraw(); });
  }
  const grid = body.appendChild(make("div", "grid"));
  grid.style.marginTop = "1rem";
  const kinds = [["input", "the token itself"], ["next", "the true next token"], ["predicted", "the predicted next token"]].filter(([kind]) => l.token[kind]);
  const at = (l2, i) => (new Set(layers.map((x) => x.layer)).size === layers.length ? l2.layer : i);
  const note = `share of a token's occurrences at its favourite expert, averaged over tokens seen at least ${l.token.min_count} times`;
  lineChart(figure(grid, "How faithfully tokens keep to one expert", note), { label: "Vocabulary specialisation", xTitle: "layer", format: percent, zero: true, xFormat: short,
    series: [...kinds.map(([kind, name], i) => ({ name, colour: seriesColour(i), points: layers.map((l2, j) => [at(l2, j), l2.token[kind].score]) })),
      { name: "shuffled routing", colour: css("--soft"), dash: true, points: layers.map((l2, j) => [at(l2, j), l2.token.input.baseline]) }] });
  lineChart(figure(grid, "How much of the routing the token explains", "mutual information over the entropy of the expert, less what shuffling gives"), { label: "Routing explained by the token",
    xTitle: "layer", format: percent, zero: true, series: kinds.map(([kind, name], i) => ({ name, colour: seriesColour(i), points: layers.map((l2, j) => [at(l2, j), l2.token[kind].explained]) })) });
});
// Spaces and line ends as signs, so that they can be seen.
const visible = (text) => (text === "" ? "∅" : text.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/\r/g, "␍").replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069]/g, "�"));

// --- text ------------------------------------------------------------------------------------------
section("text", "Text", "Real text, coloured by expert", "Every token in the colour of the expert that it goes to first. Point at a token, or step through with the arrow keys, for all its experts.", (body) => {
  if (!report.samples.length) return absent(body, "The probe text was empty.");
  const sample = report.samples[Math.min(state.sample, report.samples.length - 1)], l = layers.length ? chosen() : null;
  const routed = l ? sample.layers[state.layer] : null, hasLoss = sample.loss.some((v) => v !== null);
  const reader = body.appendChild(make("div", "reader")), tools = reader.appendChild(make("div", "tools"));
  const tabs = tools.appendChild(make("div", "tabs"));
  report.samples.forEach((s, i) => {
    const tab = tabs.appendChild(make("button", "", s.domain));
    tab.type = "button";
    tab.setAttribute("aria-pressed", String(s === sample));
    tab.addEventListener("click", () => { state.sample = i; redraw(); });
  });
  if (l && hasLoss) {
    const label = tools.appendChild(make("label")), mode = make("select");
    label.append("colour by ", mode);
    for (const [value, text] of [["expert", "expert"], ["surprise", "surprise"]]) mode.append(new Option(text, value));
    mode.value = state.mode;
    mode.addEventListener("change", () => { state.mode = mode.value; redraw(); });
  }
  if (l) tools.append(make("span", "none", l.name));
  const byExpert = l && state.mode === "expert", surprise = amountColour(8);
  const text = make("div", "text"), spans = [];
  if (byExpert) {
    const key = reader.appendChild(make("div", "key")), counts = new Array(l.experts).fill(0);
    routed.experts.forEach((list) => { if (list.length) counts[list[0]]++; });
    const present = d3.range(l.experts).filter((e) => counts[e]).sort((a, b) => counts[b] - counts[a]).slice(0, 24).sort((a, b) => a - b);
    for (const e of present) {
      const button = key.appendChild(make("button"));
      button.type = "button";
      button.setAttribute("aria-pressed", String(state.expert === e));
      button.title = `Show only what expert ${e} takes part in`;
      button.appendChild(make("i", "dot")).style.background = expertColour(e, l.experts);
      button.append(`${e}`);
      button.addEventListener("click", () => { state.expert = state.expert === e ? null : e; redraw(); });
    }
  } else if (hasLoss) {
    const key = make("div", "key");
    reader.append(key);
    colourKey(key, surprise, "expected", "surprising (8 nats)", d3.range(0.001, 8, 0.5));
  }
  reader.append(text);
  text.tabIndex = 0;
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", `Text of ${sample.domain}; arrow keys step through the tokens`);
  const lost = new Set(routed ? routed.dropped.map(([i, e]) => i + ":" + e) : []);
  sample.pieces.forEach((piece, i) => {
    if (i && sample.begins.includes(i)) text.append(make("hr", "break"));
    const span = text.appendChild(make("span", "tok", piece));
    spans.push(span);
    const best = routed && routed.experts[i].length ? routed.experts[i][0] : -1;
    const colour = byExpert ? (best >= 0 ? expertColour(best, l.experts) : null) : sample.loss[i] === null ? null : surprise(sample.loss[i]);
    if (colour) { span.style.background = colour; span.style.color = inkOn(colour); }
    if (byExpert && state.expert !== null && !routed.experts[i].includes(state.expert)) span.classList.add("faint");
    if (byExpert && routed.experts[i].some((e) => lost.has(i + ":" + e))) span.classList.add("lost");
  });
  let at = -1;
  const tell = (i, px, py) => {
    const rows = [];
    if (routed) {
      const total = d3.sum(routed.weights[i].map(Math.abs)) || 1;
      routed.experts[i].forEach((e, j) => rows.push([`expert ${e}` + (lost.has(i + ":" + e) ? " (dropped)" : ""), d3.format(".3f")(routed.weights[i][j] ?? 0), expertColour(e, l.experts), Math.abs(routed.weights[i][j] ?? 0) / total]));
      if (!rows.length) rows.push(["no expert took it", ""]);
    }
    if (sample.loss[i] !== null) rows.push(["surprise", d3.format(".2f")(sample.loss[i]) + " nats"]);
    showTip(px, py, visible(sample.pieces[i]) + (sample.pieces[i] === "" ? "  (part of a character)" : ""), rows);
  };
  text.addEventListener("pointermove", (event) => { const i = spans.indexOf(event.target); if (i >= 0) tell(i, event.clientX, event.clientY); else hideTip(); });
  text.addEventListener("pointerleave", hideTip);
  text.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10 }[event.key];
    if (!step) return;
    if (at >= 0) spans[at].classList.remove("at");
    at = Math.max(0, Math.min(spans.length - 1, at + step));
    spans[at].classList.add("at");
    const box = spans[at].getBoundingClientRect();
    tell(at, box.left, box.bottom);
    event.preventDefault();
    event.stopPropagation();
  });
  text.addEventListener("blur", () => { if (at >= 0) spans[at].classList.remove("at"); hideTip(); });
});

// --- together --------------------------------------------------------------------------------------
section("together", "Together", "Which experts work together", "Pairs that one token engages, and where its path goes in the next layer, against chance.", (body) => {
  const l = chosen(), grid = body.appendChild(make("div", "grid"));
  const pairs = figure(grid, `Used by the same token: ${l.name}`, "of the tokens of the row's expert, how many also go to the column's; neighbours are alike");
  if (l.coactivation) {
    const { order, conditional, chance } = l.coactivation;
    heatMap(pairs, { rows: order, columns: order, rowTitle: "expert", columnTitle: "expert", label: "Co-activation", colour: ratioColour(),
      value: (r, c) => (r === c ? null : conditional[order[r]][order[c]] / chance),
      tell: (r, c) => (r === c ? [`expert ${order[r]}`, []] : [`expert ${order[r]} with expert ${order[c]}`, [["of its tokens", percent(conditional[order[r]][order[c]])], ["by chance", percent(chance)], ["ratio", times(conditional[order[r]][order[c]] / chance)]]]) });
    ratioKey(pairs, "chance");
  } else absent(pairs, l.kind === "dense" ? "Every expert takes part in every token here, so no pair stands out." : "Each token engages one expert here, so no two are used together.");
  // The last layer has no next one: there the path that leads to it is shown.
  const from = layers[state.layer + 1 < layers.length ? state.layer : Math.max(0, state.layer - 1)];
  const path = figure(grid, from.transition ? `From ${from.name} to ${from.transition.to}` : "From layer to layer", "of the tokens of the row's expert, how many go to the column's in the next routed layer");
  if (from.transition) {
    const { share, chance } = from.transition;
    heatMap(path, { rows: expertLabels(share.length), columns: expertLabels(share[0].length), rowTitle: "expert here", columnTitle: "expert there", label: "Paths to the next layer", colour: ratioColour(),
      value: (r, c) => share[r][c] / chance, tell: (r, c) => [`expert ${r} → expert ${c}`, [["of its tokens", percent(share[r][c])], ["by chance", percent(chance)], ["ratio", times(share[r][c] / chance)]]] });
    ratioKey(path, "chance");
  } else absent(path, layers.length > 1 ? "One of the two layers engages every expert, so there is no path to follow." : "There is one routed layer.");
});

// --- confidence ------------------------------------------------------------------------------------
section("confidence", "Confidence", "How sure the routers are", "A router that always says 100 % cannot learn from its alternatives; one that always says one in E has not learnt to choose.", (body) => {
  const known = layers.map((l, i) => i).filter((i) => layers[i].confidence);
  if (!known.length) return absent(body, "These routers decide without probabilities (a fixed table, or a rule), so there is no confidence to show.");
  const grid = body.appendChild(make("div", "grid"));
  const bins = layers[known[0]].confidence.top.length, label = (b) => `${d3.format(".0f")((100 * b) / bins)}`;
  for (const [key, title, note, mean] of [["top", "Probability of the best expert", "each row is a layer's distribution over tokens", "mean_top"], ["entropy", "Entropy of the choice", "0 % = certain, 100 % = every expert alike", "mean_entropy"]]) {
    const box = figure(grid, title, note), share = known.map((i) => { const n = d3.sum(layers[i].confidence[key]); return layers[i].confidence[key].map((v) => (n ? v / n : 0)); });
    const most = d3.max(share.flat()) || 1;
    heatMap(box, { rows: known.map((i) => shortNames[i]), columns: d3.range(bins).map(label), rowTitle: "layer", columnTitle: "%", on: known.indexOf(state.layer), label: title, pick: (r) => choose(known[r]),
      value: (r, c) => share[r][c], colour: amountColour(most), low: 16,
      tell: (r, c) => [layerNames[known[r]], [[`${label(c)} to ${label(c + 1)} %`, percent(share[r][c]) + " of tokens"], ["mean", percent(layers[known[r]].confidence[mean])]]] });
    amountKey(box, most, percent);
  }
  if (known.length < layers.length) absent(body, "Not shown, since they decide without probabilities: " + layers.filter((l) => !l.confidence).map((l) => l.name).join(", ") + ".");
});

// --- drops -----------------------------------------------------------------------------------------
section("drops", "Drops", "Which tokens lose their place", "Where experts have a limited number of places, late tokens may find them taken.", (body) => {
  const limited = layers.filter((l) => l.drops && l.drops.rate > 0);
  if (!limited.length) return absent(body, layers.every((l) => l.kind === "dense") ? "Every expert takes part in every token; there are no places to lose." : "Nothing was dropped: every expert had a place for every token that chose it.");
  const grid = body.appendChild(make("div", "grid")), show = limited.includes(chosen()) ? chosen() : limited[0];
  const lines = (values) => limited.map((l) => ({ name: l.name, faint: l !== show, colour: l === show ? css("--accent") : css("--soft"), points: values(l) }));
  const bins = show.drops.by_position.length, longest = show.drops.longest;
  lineChart(figure(grid, `By position in the sequence: ${show.name}`, `${percent(show.drops.rate)} dropped; the last quarter loses ${d3.format("+.1f")(100 * show.drops.end_minus_start)} points more than the first`), { label: "Drops by position", xTitle: "position", xName: "position", zero: true, format: percent,
    series: lines((l) => l.drops.by_position.map((v, b) => [Math.round(((b + 0.5) * longest) / bins), v])) });
  lineChart(figure(grid, `By place of the sequence in the probe: ${show.name}`, "a slope here means that later sequences of a batch lose, not later positions"), { label: "Drops by sequence", xTitle: "sequence, % of the probe", zero: true, format: percent,
    series: lines((l) => l.drops.by_sequence.map((v, b) => [Math.round(((b + 0.5) * 100) / l.drops.by_sequence.length), v])) });
});

// --- settling --------------------------------------------------------------------------------------
section("settling", "Settling", "When the routing settled", "How many of the experts that each checkpoint chooses are those that the last one chooses, on the same text.", (body) => {
  if (report.checkpoints.length < 2) return absent(body, "One checkpoint is here; keep several (train.keep_last) to see how the routing settles.");
  const grid = body.appendChild(make("div", "grid"));
  const pairs = layers.filter((l) => l.kind === "pairs"), points = (l, key) => l.saturation.map((s) => [s.step, s[key]]);
  if (pairs.length) lineChart(figure(grid, `Overlap with the last checkpoint: ${chosen().name}`, "1 = the same experts for every token"), { label: "Router saturation", xTitle: "step", zero: true, top: 1, format: percent,
    series: [...pairs.map((l) => ({ name: l.name, faint: l !== chosen(), colour: l === chosen() ? css("--accent") : css("--soft"), points: points(l, "overlap") })),
      { name: "chance", colour: css("--mark"), dash: true, points: points(pairs.includes(chosen()) ? chosen() : pairs[0], "chance") }] });
  lineChart(figure(grid, `Same best expert: ${chosen().name}`, "share of tokens whose first choice is already the last checkpoint's"), { label: "Agreement of the best expert", xTitle: "step", zero: true, top: 1, format: percent,
    series: layers.map((l) => ({ name: l.name, faint: l !== chosen(), colour: l === chosen() ? css("--accent") : css("--soft"), points: points(l, "best_agreement") })) });
});

// --- the page --------------------------------------------------------------------------------------
const alone = new Set(["training", "text"]);  // sections that a model without routed layers still has
const bodies = new Map();
function build() {
  document.title = `${report.title}: routing report`;
  document.getElementById("title").textContent = report.title;
  const facts = document.getElementById("facts");
  for (const [name, value] of report.facts) {
    const item = facts.appendChild(make("div"));
    item.append(make("dt", "", name), make("dd", "", value));
  }
  const findings = document.querySelector("#findings ul");
  const ids = new Set(sections.map((s) => s.id));
  for (const { topic, text } of report.findings) {
    const item = findings.appendChild(make("li"));
    if (ids.has(topic) && layers.length) item.appendChild(make("a", "", topic)).href = "#" + topic;
    item.append(text);
  }
  const host = document.getElementById("sections"), nav = document.getElementById("contents");
  for (const s of sections) {
    if (!layers.length && !alone.has(s.id)) continue;
    const link = nav.appendChild(make("a", "", s.nav));
    link.href = "#" + s.id;
    const part = host.appendChild(make("section", "part"));
    part.id = s.id;
    part.append(make("h2", "", !layers.length && s.id === "text" ? "Real text, coloured by surprise" : s.title),
      make("p", "lead", !layers.length && s.id === "text" ? "How unexpected each token was to the model." : s.lead));
    bodies.set(s, part.appendChild(make("div", "body")));
  }
  if (report.left_out.length) absent(host, "Left out: " + report.left_out.join("; ") + ".");
  if (layers.length) {
    document.getElementById("layer-control").hidden = layers.length < 2;
    const select = document.getElementById("layer");
    layerNames.forEach((name, i) => select.append(new Option(name, i)));
    select.addEventListener("change", () => choose(Number(select.value)));
    document.getElementById("layer-back").addEventListener("click", () => choose(state.layer - 1));
    document.getElementById("layer-on").addEventListener("click", () => choose(state.layer + 1));
  }
  document.getElementById("save").addEventListener("click", () => {
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(report)], { type: "application/json" }));
    link.download = "report.json";
    link.click();
  });
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting)
      for (const link of nav.children) link.toggleAttribute("aria-current", link.hash === "#" + entry.target.id);
  }, { rootMargin: "-30% 0px -60% 0px" });
  for (const part of host.querySelectorAll(".part")) seen.observe(part);
}
function redraw() {
  hideTip();
  const focus = document.activeElement && document.activeElement.closest(".body") ? null : document.activeElement;
  if (layers.length) document.getElementById("layer").value = String(state.layer);
  for (const [s, body] of bodies) {
    body.style.minHeight = body.offsetHeight + "px";  // no jump while it is empty
    body.replaceChildren();
    s.draw(body);
    layOut();
    body.style.minHeight = "";
  }
  if (focus) focus.focus({ preventScroll: true });
}
function choose(layer) {
  state.layer = Math.max(0, Math.min(layers.length - 1, layer));
  state.expert = null;
  redraw();
}
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = theme === "dark" ? "☀" : "☾";
}
const wish = new URLSearchParams(location.search).get("theme"), prefers = matchMedia("(prefers-color-scheme: dark)");
setTheme(wish === "dark" || wish === "light" ? wish : prefers.matches ? "dark" : "light");
build();
redraw();
prefers.addEventListener("change", (event) => { setTheme(event.matches ? "dark" : "light"); redraw(); });
document.getElementById("theme").addEventListener("click", () => { setTheme(dark() ? "light" : "dark"); redraw(); });
let width = innerWidth, pending = 0;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  clearTimeout(pending);
  pending = setTimeout(redraw, 120);
});
document.documentElement.dataset.ready = "yes";
