// Charts over D3 that all sections share: lines, heat maps, bars, colour keys, the one tooltip. A chart is a function
// (element, options) that draws into an emptied element; it is drawn again when width, theme or layer change.
// All text goes through textContent: nothing that a model or a file says becomes markup.
"use strict";

const dark = () => document.documentElement.dataset.theme === "dark";
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

// --- numbers as people read them -------------------------------------------------------------------
const whole = d3.format(",");
const percent = (v) => (v * 100 >= 10 ? d3.format(".0f") : d3.format(".1f"))(v * 100) + " %";
const times = (v) => d3.format(v >= 10 ? ".0f" : ".2f")(v) + "×";
const short = (v) => (Number.isInteger(v) && Math.abs(v) < 1e5 ? whole(v) : Math.abs(v) >= 1e5 ? d3.format(".3s")(v) : d3.format(".3~g")(v));

// --- colours ---------------------------------------------------------------------------------------
// Blue and orange differ for every common colour blindness; the middle is the paper, so that "as chance" is quiet.
const ratioColour = () => {
  const stops = dark() ? ["#5db2ff", "#2d5f8f", "#23272f", "#8f5523", "#ffad5c"] : ["#1f5f9e", "#8fbadd", "#f2f0ea", "#f0b27a", "#b8500c"];
  const scale = d3.scaleLinear([-2, -1, 0, 1, 2], stops).interpolate(d3.interpolateLab).clamp(true);
  return (ratio) => (ratio === null || !isFinite(ratio) ? "transparent" : scale(ratio <= 0 ? -2 : Math.log2(ratio)));
};
const amountColour = (max) => {
  const stops = dark() ? ["#20252d", "#2b5d92", "#63aef0", "#e3f2ff"] : ["#f4f2ec", "#a9cbe6", "#3f86c2", "#0c3763"];
  const scale = d3.scaleLinear([0, 1 / 3, 2 / 3, 1].map((t) => t * (max || 1)), stops).interpolate(d3.interpolateLab).clamp(true);
  return (v) => (v === null ? "transparent" : scale(v));
};
// Eight hues that stay apart for colour-blind readers (Okabe and Ito); more experts walk the colour circle in golden steps
// with changing lightness, and the number in the tooltip and the highlight tell the rest.
const okabeIto = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999"];
const expertColour = (expert, experts) => experts <= 8 ? okabeIto[expert]
  : d3.hcl((expert * 137.508) % 360, 52, [72, 58, 82][expert % 3]).toString();
const seriesColour = (i) => (dark()
  ? ["#6cb6ff", "#ffad5c", "#4dd4ac", "#e48fc4", "#f0e442", "#b8bec8", "#ff7b72", "#a5a0ff", "#c9a27c", "#7ee0f2"]
  : ["#0b63a5", "#c2570c", "#00806a", "#a8467f", "#8a7a00", "#666c75", "#b3261e", "#5b52c7", "#7a5330", "#0097ad"])[i % 10];
const inkOn = (colour) => (d3.lab(colour).l > 55 ? "#16181c" : "#ffffff");

// --- the tooltip -----------------------------------------------------------------------------------
const tip = document.getElementById("tip");
function showTip(x, y, title, rows) {
  tip.replaceChildren(make("b", "", title));
  if (rows && rows.length) {
    const table = tip.appendChild(make("table"));
    for (const [name, value, colour, share] of rows) {
      const row = table.insertRow(), first = row.insertCell();
      if (colour) {
        const bar = first.appendChild(make("span", "w"));
        bar.style.background = colour;
        bar.style.width = share === undefined ? ".5rem" : Math.max(2, share * 60) + "px";
      }
      first.append(name);
      row.insertCell().textContent = value;
    }
  }
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(8, Math.min(x + 14, innerWidth - box.width - 8)) + "px";
  tip.style.top = (y + 16 + box.height > innerHeight ? Math.max(8, y - box.height - 12) : y + 16) + "px";
}
const hideTip = () => { tip.hidden = true; };
addEventListener("scroll", hideTip, { passive: true });
addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

// A chart is as wide as its figure, and a figure has its width only once its neighbours stand: draw after layout.
const waiting = [];
const afterLayout = (draw) => waiting.push(draw);
const layOut = () => { for (const draw of waiting.splice(0)) draw(); };

// --- heat map --------------------------------------------------------------------------------------
// {rows, columns: labels; value(r, c); colour(v); tell(r, c) → [title, rows]; rowTitle, columnTitle; pick(r, c); on: row;
//  label: for screen readers; cell: largest cell height}. Cells are drawn on a canvas, labels in SVG.
function heatMap(element, options) {
  const chart = element.appendChild(make("div", "chart"));
  afterLayout(() => drawHeatMap(chart, options));
}
function drawHeatMap(chart, options) {
  const { rows, columns } = options;
  const width = chart.clientWidth || 300;
  const longest = d3.max(rows, (r) => String(r).length) || 1;
  const left = Math.min(width * 0.4, 14 + longest * 6.6 + (options.rowTitle ? 14 : 0));
  const inner = Math.max(20, width - left - 2), wide = (d3.max(columns, (c) => String(c).length) || 1) * 6.6 + 6;
  // A few long names stand aslant; many short ones are thinned out.
  const aslant = wide > 34 && columns.length <= 16 && wide * columns.length > inner;
  const bottom = aslant ? 14 + wide * 0.55 : options.columnTitle ? 38 : 22;
  const square = Math.min(options.cell || 30, inner / columns.length);
  const height = Math.round(rows.length * Math.max(options.low || 0, Math.min(options.cell || 30, Math.max(square, Math.min(16, 420 / rows.length)))));
  const x = d3.scaleBand(d3.range(columns.length), [0, inner]), y = d3.scaleBand(d3.range(rows.length), [0, height]);
  const svg = d3.select(chart).append("svg").attr("height", height + bottom).attr("viewBox", `0 0 ${width} ${height + bottom}`)
    .attr("role", "img").attr("aria-label", options.label || "heat map");
  const every = (count, size, room) => Math.max(1, Math.ceil(room / (size / count)));
  const across = aslant ? 1 : every(columns.length, inner, wide), down = every(rows.length, height, 12);
  const plot = svg.append("g").attr("transform", `translate(${left},0)`);
  plot.append("g").selectAll("text").data(rows.map((text, i) => ({ text, i })).filter((d) => d.i % down === 0)).join("text")
    .attr("x", -7).attr("y", (d) => y(d.i) + y.bandwidth() / 2).attr("dy", ".34em").attr("text-anchor", "end")
    .classed("on", (d) => d.i === options.on).text((d) => d.text);
  plot.append("g").selectAll("text").data(columns.map((text, i) => ({ text, i })).filter((d) => d.i % across === 0)).join("text")
    .attr("transform", (d) => `translate(${x(d.i) + x.bandwidth() / 2},${height + 15})` + (aslant ? " rotate(-32)" : ""))
    .attr("text-anchor", aslant ? "end" : "middle").text((d) => d.text);
  if (options.columnTitle) plot.append("text").attr("class", "title").attr("x", inner / 2).attr("y", height + 33).attr("text-anchor", "middle").text(options.columnTitle);
  if (options.rowTitle) svg.append("text").attr("class", "title").attr("transform", `translate(10,${height / 2}) rotate(-90)`).attr("text-anchor", "middle").text(options.rowTitle);

  const canvas = chart.appendChild(make("canvas")), pixels = Math.min(3, devicePixelRatio || 1);
  canvas.width = inner * pixels; canvas.height = height * pixels;
  Object.assign(canvas.style, { left: left + "px", top: 0, width: inner + "px", height: height + "px" });
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", (options.label || "heat map") + "; arrow keys read the cells");
  const draw = canvas.getContext("2d");
  const gap = x.bandwidth() > 9 && y.bandwidth() > 9 ? 1 : 0;
  draw.scale(pixels, pixels);
  for (let r = 0; r < rows.length; ++r)
    for (let c = 0; c < columns.length; ++c) {
      draw.fillStyle = options.colour(options.value(r, c));
      draw.fillRect(x(c), y(r), x.bandwidth() - gap + (gap ? 0 : 0.5), y.bandwidth() - gap + (gap ? 0 : 0.5));
    }
  const cursor = plot.append("rect").attr("class", "cursor").attr("rx", 2).style("display", "none");
  // The cursor is SVG and lies under the canvas's cells, so it gets a layer of its own above.
  const over = d3.select(chart).append("svg").attr("height", height).style("position", "absolute").style("left", left + "px").style("top", 0)
    .style("width", inner + "px").style("pointer-events", "none").attr("aria-hidden", "true");
  over.append(() => cursor.node());
  let at = null;
  const visit = (r, c, px, py) => {
    at = [r, c];
    cursor.style("display", null).attr("x", x(c)).attr("y", y(r)).attr("width", x.bandwidth() - gap).attr("height", y.bandwidth() - gap);
    const box = canvas.getBoundingClientRect();
    const [title, lines] = options.tell(r, c);
    showTip(px ?? box.left + x(c) + x.bandwidth() / 2, py ?? box.top + y(r) + y.bandwidth() / 2, title, lines);
  };
  const leave = () => { cursor.style("display", "none"); hideTip(); };
  const cellAt = (event) => {
    const box = canvas.getBoundingClientRect();
    const c = Math.floor((event.clientX - box.left) / x.step()), r = Math.floor((event.clientY - box.top) / y.step());
    return [Math.max(0, Math.min(rows.length - 1, r)), Math.max(0, Math.min(columns.length - 1, c))];
  };
  canvas.addEventListener("pointermove", (event) => visit(...cellAt(event), event.clientX, event.clientY));
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("blur", leave);
  if (options.pick) {
    canvas.style.cursor = "pointer";
    canvas.addEventListener("click", (event) => options.pick(...cellAt(event)));
  }
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (step) {
      const [r, c] = at || [0, -1];
      visit(Math.max(0, Math.min(rows.length - 1, r + step[0])), Math.max(0, Math.min(columns.length - 1, c + step[1])));
      event.preventDefault();
      event.stopPropagation();
    } else if (event.key === "Enter" && at && options.pick) options.pick(...at);
  });
}

// A bar of colours with what its ends mean.
function colourKey(element, colour, from, to, stops) {
  const key = element.appendChild(make("div", "scale"));
  key.append(make("span", "", from));
  const ramp = key.appendChild(make("span", "ramp"));
  ramp.style.background = `linear-gradient(90deg, ${stops.map(colour).join(", ")})`;
  key.append(make("span", "", to));
}
const ratioKey = (element, what) => colourKey(element, ratioColour(), "¼×", "4× " + what, d3.range(-2, 2.01, 0.25).map((v) => 2 ** v));
const amountKey = (element, max, format) => colourKey(element, amountColour(max), format(0), format(max), d3.range(0.001, 1.001, 0.1).map((t) => t * max));

// --- lines -----------------------------------------------------------------------------------------
// {series: [{name, colour, points: [[x, y]], dash, faint, width}], xTitle, format, zero, top, label, xFormat}; every abscissa
// of a report counts something (steps, layers, positions), so ticks are whole.
const hiddenSeries = new Set();
function nearestIndex(xs, x, place) {
  let best = 0;
  xs.forEach((value, i) => { if (Math.abs(x(value) - place) < Math.abs(x(xs[best]) - place)) best = i; });
  return best;
}
function lineChart(element, options) {
  const chart = element.appendChild(make("div", "chart"));
  const key = (s) => (options.label || "") + "/" + s.name;
  const all = options.series.filter((s) => s.points.length);
  const shown = all.filter((s) => !hiddenSeries.has(key(s)));
  afterLayout(() => drawLines(chart, options, shown));
  const named = all.filter((s) => !s.faint && s.legend !== false);
  if (named.length > 1) {
    const legend = element.appendChild(make("div", "legend"));
    for (const s of named) {
      const button = legend.appendChild(make("button"));
      button.type = "button";
      button.setAttribute("aria-pressed", String(!hiddenSeries.has(key(s))));
      const swatch = button.appendChild(make("i", s.dash ? "dash" : ""));
      swatch.style.color = s.colour;
      button.append(s.name);
      button.addEventListener("click", () => {
        if (!hiddenSeries.delete(key(s)) && shown.length > 1) hiddenSeries.add(key(s));
        redraw();
      });
    }
  }
}
function drawLines(chart, options, shown) {
  const width = chart.clientWidth || 300, height = options.height || Math.max(190, Math.min(300, width * 0.45));
  const margin = { top: 8, right: 12, bottom: options.xTitle ? 40 : 26, left: 46 };
  const inner = [width - margin.left - margin.right, height - margin.top - margin.bottom];
  const points = shown.flatMap((s) => s.points), ys = points.map((p) => p[1]).filter((v) => v !== null);
  const x = d3.scaleLinear(d3.extent(points, (p) => p[0]), [0, inner[0]]);
  if (x.domain()[0] === x.domain()[1]) x.domain([x.domain()[0] - 1, x.domain()[0] + 1]);
  let [low, high] = d3.extent(ys);
  if (options.zero) low = Math.min(0, low);
  if (!(high > low)) { high = (high || 0) + (high ? Math.abs(high) * 0.1 : 1); }
  const y = d3.scaleLinear([low, options.top ? Math.max(options.top, high) : high], [inner[1], 0]).nice(5);
  const svg = d3.select(chart).append("svg").attr("height", height).attr("viewBox", `0 0 ${width} ${height}`).attr("role", "img")
    .attr("aria-label", (options.label || "lines") + "; arrow keys read the points").attr("tabindex", 0);
  const plot = svg.append("g").attr("transform", `translate(${margin.left},${margin.top})`);
  const format = options.format || short;
  plot.append("g").attr("class", "axis").call(d3.axisLeft(y).ticks(5).tickSize(-inner[0]).tickPadding(7).tickFormat(format));
  plot.append("g").attr("class", "axis").attr("transform", `translate(0,${inner[1]})`)
    .call(d3.axisBottom(x).tickValues(x.ticks(Math.max(2, Math.min(8, inner[0] / 80))).filter(Number.isInteger)).tickSize(0).tickPadding(9).tickFormat(options.xFormat || short));
  if (options.xTitle) plot.append("text").attr("class", "title").attr("x", inner[0]).attr("y", inner[1] + 34).attr("text-anchor", "end").text(options.xTitle);
  const line = d3.line().x((p) => x(p[0])).y((p) => y(p[1])).defined((p) => p[1] !== null);
  for (const s of shown) {
    plot.append("path").attr("fill", "none").attr("stroke", s.colour).attr("stroke-width", s.width || (s.faint ? 1.2 : 2.2)).attr("stroke-linejoin", "round")
      .attr("opacity", s.faint ? 0.35 : 1).attr("stroke-dasharray", s.dash ? "5 4" : null).attr("d", line(s.points));
    if (s.points.length <= 12 && !s.dash) plot.append("g").selectAll("circle").data(s.points.filter((p) => p[1] !== null)).join("circle")
      .attr("r", s.faint ? 1.8 : 3).attr("fill", s.colour).attr("opacity", s.faint ? 0.35 : 1).attr("cx", (p) => x(p[0])).attr("cy", (p) => y(p[1]));
  }
  const rule = plot.append("line").attr("stroke", "var(--faint)").attr("y2", inner[1]).style("display", "none");
  const xs = Array.from(new Set(points.map((p) => p[0]))).sort(d3.ascending);
  let at = -1;
  const visit = (i, px, py) => {
    at = Math.max(0, Math.min(xs.length - 1, i));
    const value = xs[at], box = svg.node().getBoundingClientRect();
    rule.style("display", null).attr("x1", x(value)).attr("x2", x(value));
    const lines = shown.filter((s) => !s.faint).map((s) => [s.name, s.points[Math.min(s.points.length - 1, d3.bisector((p) => p[0]).left(s.points, value))], s.colour])
      .filter((l) => l[1] && l[1][1] !== null).map(([name, p, colour]) => [name, format(p[1]), colour]);
    showTip(px ?? box.left + margin.left + x(value), py ?? box.top + 20, (options.xName || options.xTitle || "at") + " " + (options.xFormat || short)(value), lines);
  };
  const leave = () => { rule.style("display", "none"); hideTip(); };
  const node = svg.node();
  node.addEventListener("pointermove", (event) => {
    const place = event.clientX - node.getBoundingClientRect().left - margin.left;
    visit(nearestIndex(xs, x, place), event.clientX, event.clientY);
  });
  node.addEventListener("pointerleave", leave);
  node.addEventListener("blur", leave);
  node.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !xs.length) return;
    visit(at + step);
    event.preventDefault();
    event.stopPropagation();
  });
}

// --- bars ------------------------------------------------------------------------------------------
// {bars: [{name, value, mark, colour, tell}], format, label, pick(i), on}: horizontal, with a mark for the chance level.
function barChart(element, options) {
  const chart = element.appendChild(make("div", "chart"));
  afterLayout(() => drawBars(chart, options));
}
function drawBars(chart, options) {
  const width = chart.clientWidth || 300, row = Math.max(14, Math.min(34, 420 / options.bars.length)), height = row * options.bars.length + 22;
  const left = Math.min(width * 0.4, 14 + (d3.max(options.bars, (b) => b.name.length) || 1) * 6.8);
  const x = d3.scaleLinear([0, d3.max(options.bars, (b) => Math.max(b.value, b.mark || 0)) || 1], [0, width - left - 58]).nice(4);
  const svg = d3.select(chart).append("svg").attr("height", height).attr("viewBox", `0 0 ${width} ${height}`).attr("role", "img").attr("aria-label", options.label || "bars");
  const plot = svg.append("g").attr("transform", `translate(${left},0)`);
  const bars = plot.selectAll("g").data(options.bars).join("g").attr("transform", (b, i) => `translate(0,${i * row})`);
  bars.append("rect").attr("width", width - left).attr("height", row).attr("fill", "transparent");
  bars.append("rect").attr("y", row * 0.16).attr("rx", 3).attr("height", row * 0.68).attr("width", (b) => Math.max(1, x(b.value)))
    .attr("fill", (b) => b.colour || "var(--accent)").attr("opacity", (b, i) => (options.on === undefined || options.on === i ? 1 : 0.55));
  bars.append("text").attr("x", -7).attr("y", row / 2).attr("dy", ".34em").attr("text-anchor", "end").classed("on", (b, i) => options.on === i).text((b) => b.name);
  bars.append("text").attr("x", (b) => x(Math.max(b.value, b.mark || 0)) + 7).attr("y", row / 2).attr("dy", ".34em").text((b) => options.format(b.value));
  bars.filter((b) => b.mark !== undefined).append("line").attr("x1", (b) => x(b.mark)).attr("x2", (b) => x(b.mark)).attr("y1", 1).attr("y2", row - 1)
    .attr("stroke", "var(--mark)").attr("stroke-width", 2);
  bars.each(function (b) {
    const i = options.bars.indexOf(b);
    this.addEventListener("pointermove", (event) => showTip(event.clientX, event.clientY, b.name, b.tell));
    this.addEventListener("pointerleave", hideTip);
    if (options.pick) this.addEventListener("click", () => options.pick(i));
  });
  if (options.pick) bars.style("cursor", "pointer");
}
