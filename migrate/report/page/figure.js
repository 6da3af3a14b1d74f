// Figures of attempts: zoom, what is said when pointed at, and labels where there is room.
"use strict";
(() => {
const NARROWEST = 540, PAD = 3, LINE = 13, BAR = 18, TENTH = 10, UNITS = 4000, NEAR_PX = 12, TICKS = 8;
const ACROSS = ["x", "x1", "x2", "cx", "width"];
const numbers = (text) => text.split(" ").map(Number);
const made = (name, attributes, text) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
};

// Everything across is a share of the first window; a zoom is another share of it.
function live(figure) {
  const plot = figure.querySelector(".fig-plot"), [begin, end] = numbers(figure.dataset.w);
  const moved = [], ticks = plot.querySelector(".fig-ticks"), height = plot.height.baseVal.value;
  for (const node of plot.querySelectorAll("rect, line, circle, text"))
    for (const key of ACROSS) {
      const value = node.getAttribute(key);
      if (value?.endsWith("%") && !ticks.contains(node) && !(key === "x2" && node.matches(".rule"))
          && !node.matches(".l, .lead, .missing, .frame")) moved.push([node, key, parseFloat(value)]);
    }
  const labels = [...plot.querySelectorAll(".l")].map((node) => ({
    node, lead: node.nextSibling?.matches(".lead") ? node.nextSibling : null,
    begin: +node.dataset.b, end: +node.dataset.e, shift: +(node.dataset.s ?? 0),
    places: node.dataset.p.split(" ").reduce((all, word, turn, words) => turn % 2 ? all : [...all, [word, +words[turn + 1]]], []),
  }));
  const blocks = [...plot.querySelectorAll("rect.b, .m circle")].map((node) => ({
    node, pad: node.r ? node.r.baseVal.value + 1 : 0,
    y: node.r ? +node.getAttribute("cy") : node.y.baseVal.value + node.height.baseVal.value - BAR / 2,
  }));
  const stretched = [...plot.querySelectorAll("svg[viewBox]")].map((node) => [node, numbers(node.getAttribute("viewBox"))]);
  const bar = plot.appendChild(made("line", { class: "fig-at none", y1: 0, y2: height }));
  const drag = plot.appendChild(made("rect", { class: "fig-drag none", y: 0, height }));
  let low = begin, high = end, from = null;

  const share = (at) => 100 * (at - low) / (high - low);
  const timeAt = (event) => {
    const box = plot.getBoundingClientRect();
    return low + (high - low) * (event.clientX - box.left) / box.width;
  };

  function zoom(a, b) {
    if (!(b - a > 0.2)) return;
    [low, high] = [a, b];
    for (const [node, key, value] of moved) {
      const scale = (end - begin) / (high - low);
      node.setAttribute(key, (key === "width" ? value * scale : share(begin + (end - begin) * value / 100)) + "%");
    }
    for (const [node, box] of stretched)
      node.setAttribute("viewBox", `${low * TENTH} ${box[1]} ${(high - low) * TENTH} ${box[3]}`);
    for (const button of figure.querySelectorAll("button")) {
      const [x, y] = numbers(button.dataset.w);
      button.setAttribute("aria-pressed", Math.abs(x - low) < 0.01 && Math.abs(y - high) < 0.01);
    }
    tick();
    place(plot.getBoundingClientRect().width);
  }

  function tick() {
    const rough = (high - low) / TICKS, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
    const digits = Math.max(0, -Math.floor(Math.log10(step)));
    ticks.replaceChildren();
    for (let turn = Math.ceil(low / step); turn * step <= high; turn++) {
      const x = share(turn * step) + "%";
      ticks.append(made("line", { x1: x, x2: x, y1: 0, y2: height - 20 }),
        made("text", { x, y: height - 10 }, (turn * step).toFixed(digits)));
    }
  }

  // As migrate/report/figure_labels.py does it, with the letters' true width.
  function place(width) {
    const px = (node, key) => parseFloat(node.getAttribute(key)) * width / 100;
    const taken = [], blocked = blocks.map(({ node, pad, y }) => {
      const left = px(node, pad ? "cx" : "x");
      return { y, left: left - pad + 0.5, right: left + (pad || px(node, "width")) - 0.5 };
    });
    for (const { node, lead, begin: b, end: e, shift, places } of labels) {
      node.classList.remove("none");
      const first = share(begin + (end - begin) * b / 100), last = share(begin + (end - begin) * e / 100);
      const left = Math.max(first, 0) * width / 100, right = Math.min(last, 100) * width / 100;
      const size = node.getComputedTextLength() + 2 * PAD, middle = (left + right) / 2;
      const boxes = (how, y) => {
        let x = how === "beside" ? right + shift : left;
        if (how === "mid") x = Math.max(0, Math.min(middle - size / 2, width - size));
        const box = { left: x, right: x + size, top: y - LINE / 2, bottom: y + LINE / 2 };
        return lead ? [box, { left: middle - 1, right: middle + 1, top: box.bottom, bottom: +lead.getAttribute("y2") }] : [box];
      };
      const free = (how, y) => {
        const all = boxes(how, y), [box] = all;
        if (box.left < 0 || box.right > width || (how === "in" && right - left < size)) return false;
        if (all.some((one) => taken.some((other) => one.left < other.right && other.left < one.right
            && one.top < other.bottom && other.top < one.bottom))) return false;
        return how === "in" || how === "mid"
          || !blocked.some((other) => other.y === y && box.left < other.right && other.left < box.right);
      };
      const spot = first > 100 || last < 0 ? undefined : places.find(([how, y]) => free(how, y));
      for (const one of lead ? [node, lead] : [node]) one.classList.toggle("none", !spot);
      if (!spot) continue;
      taken.push(...boxes(...spot));
      node.setAttribute("x", 100 * (boxes(...spot)[0].left + PAD) / width + "%");
      node.setAttribute("y", spot[1]);
      node.setAttribute("text-anchor", "start");
      node.removeAttribute("dx");
      for (const key of lead ? ["x1", "x2"] : []) lead.setAttribute(key, 100 * middle / width + "%");
      lead?.setAttribute("y1", spot[1] + LINE / 2);
    }
  }

  // --- what is said ---
  const paths = new Map();
  const points = (path) => {
    if (!paths.has(path)) {
      const all = [];
      let x = 0, y = 0;
      for (const [, letter, dx, dy] of path.getAttribute("d").matchAll(/([MLm])(-?\d+)\s?([-+]?\d+)/g)) {
        x = letter === "m" ? x + +dx : +dx;
        y = letter === "m" ? y + +dy : +dy;
        all.push([x, y]);
      }
      paths.set(path, all);
    }
    return paths.get(path);
  };
  const stretches = (path) => {
    if (!paths.has(path)) {
      let x = 0;
      paths.set(path, [...path.getAttribute("d").matchAll(/([Mm])(-?\d+) \d+h(\d+)/g)].map(([, letter, dx, long]) => {
        const begin = letter === "M" ? +dx : x + +dx;
        x = begin + +long;
        return [begin, +long];
      }));
    }
    return paths.get(path);
  };
  const nearest = (path, at, yUnits, aspect) => {
    let best = null, least = Infinity;
    for (const [x, y] of points(path)) {
      const distance = Math.abs(x - at * TENTH) + (yUnits === null ? 0 : Math.abs(y - yUnits) * aspect);
      if (distance < least) [least, best] = [distance, [x, y]];
    }
    return best && [best[0] / TENTH, best[1]];
  };
  const signed = (ms) => `${ms < 0 ? "−" : "+"}${Math.abs(ms).toFixed(1)} ms`;
  const brief = (value) => +value.toPrecision(3);

  function said(event) {
    const at = timeAt(event), box = plot.getBoundingClientRect(), y = event.clientY - box.top, perPx = (high - low) / box.width;
    const lines = [signed(at)];
    const pointed = document.elementsFromPoint(event.clientX, event.clientY).map((node) => node.closest("rect.b, rect.g, .m"));
    for (const node of new Set(pointed)) {
      const title = node && figure.contains(node) && node.querySelector("title");
      if (title) { node.dataset.said = title.textContent; title.remove(); }
      if (node?.dataset.said) lines.push(node.dataset.said);
    }
    for (const [node] of stretched) {
      const top = node.y.baseVal.value, tall = node.height.baseVal.value;
      if (y < top || y > top + tall) continue;
      const units = UNITS * (y - top) / tall;
      for (const path of node.querySelectorAll(".dots")) {
        const near = nearest(path, at, units, perPx * TENTH * tall / UNITS);
        if (!near || Math.abs(near[0] - at) > NEAR_PX * perPx || Math.abs(near[1] - units) * tall / UNITS > NEAR_PX) continue;
        const [least, most] = numbers(node.dataset.delay);
        const delay = 10 ** (most - (most - least) * near[1] / UNITS);
        lines.push(`packet sent at ${signed(near[0])}, arrived ${brief(delay)} ms later`);
      }
      for (const path of node.querySelectorAll(".shades"))
        for (const [x, long] of stretches(path))
          if (Math.abs(at - (x + long / 2) / TENTH) <= long / 2 / TENTH + 2 * perPx)
            lines.push(`${path.dataset.what}: ${(long / TENTH).toFixed(1)} ms, from ${signed(x / TENTH)}`);
      for (const path of node.querySelectorAll("[data-line]")) {
        const words = path.dataset.line.split(" "), near = nearest(path, at, null, 0);
        if (near && Math.abs(near[0] - at) < 4 * NEAR_PX * perPx)
          lines.push(`${words.slice(0, -2).join(" ")} ${brief(+words.at(-1) * (1 - near[1] / UNITS))} ${words.at(-2)}, at ${signed(near[0])}`);
      }
    }
    return lines.join("\n");
  }

  plot.addEventListener("pointermove", (event) => {
    const x = share(timeAt(event)) + "%";
    bar.classList.remove("none");
    bar.setAttribute("x1", x);
    bar.setAttribute("x2", x);
    if (from !== null) {
      const [a, b] = [from, timeAt(event)].sort((p, q) => p - q);
      drag.classList.remove("none");
      drag.setAttribute("x", share(a) + "%");
      drag.setAttribute("width", share(b) - share(a) + "%");
    }
    show(figure, said(event), event);
  });
  plot.addEventListener("pointerleave", () => { bar.classList.add("none"); show(figure, ""); });
  plot.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.pointerType === "touch") return;
    from = timeAt(event);
    plot.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointerup", (event) => {
    const [a, b] = [from ?? 0, timeAt(event)].sort((p, q) => p - q);
    if (from !== null && share(b) - share(a) > 0.7) zoom(a, b);
    from = null;
    drag.classList.add("none");
  });
  plot.addEventListener("dblclick", () => zoom(begin, end));
  figure.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) zoom(...numbers(button.dataset.w));
  });

  figure.classList.add("live");
  zoom(begin, end);
  new ResizeObserver(() => place(plot.getBoundingClientRect().width)).observe(plot);
  addEventListener("beforeprint", () => place(NARROWEST));
  addEventListener("afterprint", () => place(plot.getBoundingClientRect().width));
}

const tip = document.createElement("div");
tip.className = "fig-tip";
tip.setAttribute("role", "status");
function show(figure, text, event) {
  if (tip.parentNode !== figure) figure.append(tip);
  tip.textContent = text;
  if (!event) return;
  const box = tip.getBoundingClientRect(), right = event.clientX + 16 + box.width > innerWidth;
  tip.style.left = `${right ? event.clientX - 12 - box.width : event.clientX + 16}px`;
  tip.style.top = `${Math.min(event.clientY + 14, innerHeight - box.height - 4)}px`;
}

// A figure comes to life when it comes into view; as it is written it can be read without.
const watch = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries)
    if (isIntersecting) { watch.unobserve(target); live(target); }
}, { rootMargin: "300px" });
for (const figure of document.querySelectorAll(".fig")) watch.observe(figure);
})();
