// Figures of attempts: zoom, what is said when pointed at, and labels where there is room.
"use strict";
(() => {
// As in drawing.py, figure_labels.py and svg.py.
const NARROWEST = 540, PAD = 3, LINE = 13, BAR = 18, TENTH = 10, UNITS = 4000;
const NEAR_PX = 12, TICKS = 8, LEAST_MS = 0.2;

const numbers = (text) => text.split(" ").map(Number);
const signed = (ms) => `${ms < 0 ? "−" : "+"}${Math.abs(ms).toFixed(1)} ms`;
const brief = (value) => +value.toPrecision(3);
const made = (name, attributes, text = "") => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
};

// --- what a figure consists of ---

class View {
  constructor(figure) {
    this.figure = figure;
    this.plot = figure.querySelector(".fig-plot");
    this.height = this.plot.height.baseVal.value;
    this.ticks = this.plot.querySelector(".fig-ticks");
    this.whole = numbers(figure.dataset.w);
    this.shown = this.whole;
    this.moved = [...this.across()];
    this.labels = [...this.plot.querySelectorAll(".l")].map(labelOf);
    this.blocks = [...this.plot.querySelectorAll("rect.b, .m circle")].map(blockOf);
    this.stretched = [...this.plot.querySelectorAll("svg[viewBox]")];
    this.cursor = this.plot.appendChild(made("line", { class: "fig-at none", y1: 0, y2: this.height }));
    this.drag = this.plot.appendChild(made("rect", { class: "fig-drag none", y: 0, height: this.height }));
  }

  // What stands at a share of the first window: its element, attribute and share.
  *across() {
    for (const node of this.plot.querySelectorAll("rect, line, circle, text")) {
      if (node.matches(".l, .lead, .missing, .frame, .rule, .fig-ticks *")) continue;
      for (const key of ["x", "x1", "x2", "cx", "width"]) {
        const value = node.getAttribute(key);
        if (value?.endsWith("%")) yield [node, key, parseFloat(value)];
      }
    }
  }

  // Per cent of what is shown.
  at(ms) { return 100 * (ms - this.shown[0]) / (this.shown[1] - this.shown[0]); }

  // Of a per cent of the first window.
  moveTo(percent) { return this.at(this.whole[0] + (this.whole[1] - this.whole[0]) * percent / 100); }

  get width() { return this.plot.getBoundingClientRect().width; }

  time(event) {
    const box = this.plot.getBoundingClientRect();
    return this.shown[0] + (this.shown[1] - this.shown[0]) * (event.clientX - box.left) / box.width;
  }

  zoom(begin, end) {
    if (end - begin < LEAST_MS) return;
    this.shown = [begin, end];
    const scale = (this.whole[1] - this.whole[0]) / (end - begin);
    for (const [node, key, percent] of this.moved)
      node.setAttribute(key, `${key === "width" ? percent * scale : this.moveTo(percent)}%`);
    for (const node of this.stretched)
      node.setAttribute("viewBox", `${begin * TENTH} 0 ${(end - begin) * TENTH} ${UNITS}`);
    for (const button of this.figure.querySelectorAll("button")) {
      const [low, high] = numbers(button.dataset.w);
      button.setAttribute("aria-pressed", Math.abs(low - begin) < 0.01 && Math.abs(high - end) < 0.01);
    }
    this.tick();
    place(this, this.width);
  }

  tick() {
    const [low, high] = this.shown, rough = (high - low) / TICKS, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
    const digits = Math.max(0, -Math.floor(Math.log10(step)));
    this.ticks.replaceChildren();
    for (let turn = Math.ceil(low / step); turn * step <= high; turn++) {
      const x = `${this.at(turn * step)}%`;
      this.ticks.append(made("line", { x1: x, x2: x, y1: 0, y2: this.height - 20 }),
        made("text", { x, y: this.height - 10 }, (turn * step).toFixed(digits)));
    }
  }
}

// --- labels, as figure_labels.py places them, by the letters' true width ---

function labelOf(node) {
  const { b, e, s = 0, p } = node.dataset, words = p.split(" "), next = node.nextSibling;
  const places = [];
  for (let turn = 0; turn < words.length; turn += 2) places.push([words[turn], +words[turn + 1]]);
  return { node, lead: next?.matches(".lead") ? next : null, begin: +b, end: +e, shift: +s, places };
}

function blockOf(node) {
  if (node.r) return { node, key: "cx", pad: node.r.baseVal.value + 1, y: +node.getAttribute("cy") };
  return { node, key: "x", pad: 0, y: node.y.baseVal.value + node.height.baseVal.value - BAR / 2 };
}

const meet = (one, other) => one.left < other.right && other.left < one.right
  && one.top < other.bottom && other.top < one.bottom;

function place(view, width) {
  if (!width) return;
  const taken = [], px = (node, key) => parseFloat(node.getAttribute(key)) * width / 100;
  const blocked = view.blocks.map(({ node, key, pad, y }) => {
    const left = px(node, key), right = left + (pad || px(node, "width"));
    return { left: left - pad + 0.5, right: right - 0.5, top: y, bottom: y + 0.1 };
  });
  for (const label of view.labels) {
    const { node, lead } = label;
    node.classList.remove("none");
    const boxes = placeOf(view, label, width, taken, blocked);
    for (const part of lead ? [node, lead] : [node]) part.classList.toggle("none", !boxes);
    if (!boxes) continue;
    const [box, foot] = boxes;
    taken.push(...boxes);
    node.removeAttribute("dx");
    node.setAttribute("text-anchor", "start");
    node.setAttribute("x", `${100 * (box.left + PAD) / width}%`);
    node.setAttribute("y", (box.top + box.bottom) / 2);
    if (!foot) continue;
    lead.setAttribute("y1", foot.top);
    for (const key of ["x1", "x2"]) lead.setAttribute(key, `${50 * (foot.left + foot.right) / width}%`);
  }
}

// The boxes of a label, and of the line down from it, at the first place that is free.
function placeOf(view, { node, lead, begin, end, shift, places }, width, taken, blocked) {
  const [first, last] = [view.moveTo(begin), view.moveTo(end)];
  if (first > 100 || last < 0) return undefined;
  const left = Math.max(first, 0) * width / 100, right = Math.min(last, 100) * width / 100;
  const middle = (left + right) / 2, size = node.getComputedTextLength() + 2 * PAD;
  for (const [how, y] of places) {
    let x = how === "beside" ? right + shift : left;
    if (how === "mid") x = Math.max(0, Math.min(middle - size / 2, width - size));
    const box = { left: x, right: x + size, top: y - LINE / 2, bottom: y + LINE / 2 };
    const boxes = [box];
    if (lead) boxes.push({ left: middle - 1, right: middle + 1, top: box.bottom, bottom: +lead.getAttribute("y2") });
    if (box.left < 0 || box.right > width || (how === "in" && right - left < size)) continue;
    if (boxes.some((part) => taken.some((other) => meet(part, other)))) continue;
    if ((how === "at" || how === "beside") && blocked.some((bar) => meet(box, bar))) continue;
    return boxes;
  }
  return undefined;
}

// --- what is said ---

const read = new WeakMap();
const once = (path, parse) => {
  if (!read.has(path)) read.set(path, parse(path.getAttribute("d")));
  return read.get(path);
};

function points(d) {
  let x = 0, y = 0;
  return [...d.matchAll(/([MLm])(-?\d+)\s?([-+]?\d+)/g)].map(([, letter, across, down]) => {
    [x, y] = letter === "m" ? [x + +across, y + +down] : [+across, +down];
    return [x, y];
  });
}

function stretches(d) {
  let end = 0;
  return [...d.matchAll(/([Mm])(-?\d+) \d+h(\d+)/g)].map(([, letter, across, length]) => {
    const begin = letter === "M" ? +across : end + +across;
    end = begin + +length;
    return [begin / TENTH, end / TENTH];
  });
}

const nearest = (path, distance) => once(path, points).reduce((best, point) =>
  best === null || distance(point) < distance(best) ? point : best, null);

function *ofElements(view, event) {
  const nodes = document.elementsFromPoint(event.clientX, event.clientY);
  for (const node of new Set(nodes.map((pointed) => pointed.closest("rect.b, rect.g, .m")))) {
    if (!node || !view.figure.contains(node)) continue;
    const title = node.querySelector("title");
    if (title) { node.dataset.said = title.textContent; title.remove(); }  // else it is said twice
    yield node.dataset.said;
  }
}

function *ofDrawing(node, at, y, msPerPx) {
  const tall = node.height.baseVal.value, down = UNITS * y / tall;
  for (const path of node.querySelectorAll(".dots")) {
    const px = ([x, units]) => Math.hypot((x / TENTH - at) / msPerPx, (units - down) * tall / UNITS);
    const packet = nearest(path, px), [least, most] = numbers(node.dataset.delay);
    if (!packet || px(packet) > NEAR_PX) continue;
    const delay = 10 ** (most - (most - least) * packet[1] / UNITS);
    yield `packet sent at ${signed(packet[0] / TENTH)}, arrived ${brief(delay)} ms later`;
  }
  for (const path of node.querySelectorAll(".shades"))
    for (const [begin, end] of once(path, stretches))
      if (begin - 2 * msPerPx <= at && at <= end + 2 * msPerPx)
        yield `${path.dataset.what}: ${(end - begin).toFixed(1)} ms, from ${signed(begin)}`;
  for (const path of node.querySelectorAll("[data-line]")) {
    const px = ([x]) => Math.abs(x / TENTH - at) / msPerPx, point = nearest(path, px);
    if (!point || px(point) > 4 * NEAR_PX) continue;
    const words = path.dataset.line.split(" "), most = +words.pop(), unit = words.pop();
    yield `${words.join(" ")} ${brief(most * (1 - point[1] / UNITS))} ${unit}, at ${signed(point[0] / TENTH)}`;
  }
}

function said(view, event) {
  const at = view.time(event), y = event.clientY - view.plot.getBoundingClientRect().top;
  const lines = [signed(at), ...ofElements(view, event)];
  for (const node of view.stretched) {
    const top = node.y.baseVal.value;
    if (top <= y && y <= top + node.height.baseVal.value)
      lines.push(...ofDrawing(node, at, y - top, (view.shown[1] - view.shown[0]) / view.width));
  }
  return lines.join("\n");
}

const tip = document.createElement("div");
tip.className = "fig-tip";
tip.setAttribute("role", "status");
function show(view, text, event) {
  if (tip.parentNode !== view.figure) view.figure.append(tip);
  tip.textContent = text;
  if (!event) return;
  const { width, height } = tip.getBoundingClientRect(), right = event.clientX + 16 + width > innerWidth;
  tip.style.left = `${right ? event.clientX - 12 - width : event.clientX + 16}px`;
  tip.style.top = `${Math.min(event.clientY + 14, innerHeight - height - 4)}px`;
}

// --- what is done with it ---

function listen(view) {
  const { figure, plot, cursor, drag } = view;
  let from = null;
  const dragged = (event) => [from, view.time(event)].sort((one, other) => one - other);
  plot.addEventListener("pointermove", (event) => {
    cursor.classList.remove("none");
    for (const key of ["x1", "x2"]) cursor.setAttribute(key, `${view.at(view.time(event))}%`);
    if (from !== null) {
      const [begin, end] = dragged(event).map((ms) => view.at(ms));
      drag.classList.remove("none");
      drag.setAttribute("x", `${begin}%`);
      drag.setAttribute("width", `${end - begin}%`);
    }
    show(view, said(view, event), event);
  });
  plot.addEventListener("pointerleave", () => { cursor.classList.add("none"); show(view, ""); });
  plot.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.pointerType === "touch") return;
    from = view.time(event);
    plot.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointerup", (event) => {
    if (from === null) return;
    const [begin, end] = dragged(event);
    if (view.at(end) - view.at(begin) > 0.7) view.zoom(begin, end);
    from = null;
    drag.classList.add("none");
  });
  plot.addEventListener("dblclick", () => view.zoom(...view.whole));
  figure.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) view.zoom(...numbers(button.dataset.w));
  });
  new ResizeObserver(() => place(view, view.width)).observe(plot);
  addEventListener("beforeprint", () => place(view, NARROWEST));
  addEventListener("afterprint", () => place(view, view.width));
}

// A figure comes to life when it comes into view; as it is written it can be read without.
const watch = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    watch.unobserve(target);
    const view = new View(target);
    target.classList.add("live");
    view.zoom(...view.whole);
    listen(view);
  }
}, { rootMargin: "300px" });
for (const figure of document.querySelectorAll(".fig")) watch.observe(figure);
})();
