"use strict";
const attempts = [...document.querySelectorAll("details.attempt")];
const buttons = [...document.querySelectorAll("button[data-result]")];
const caseOf = document.getElementById("case");
const find = document.getElementById("find");
const count = document.getElementById("count");

const filter = () => {
  const pressed = buttons.find((button) => button.getAttribute("aria-pressed") === "true");
  const result = pressed ? pressed.dataset.result : "";
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const attempt of attempts) {
    const { result: of, case: name } = attempt.dataset;
    const right = (!result || (result === "pass") === (of === "pass")) && (!caseOf.value || caseOf.value === name);
    const text = right && words.length ? attempt.textContent.toLowerCase() : "";
    attempt.hidden = !(right && words.every((word) => text.includes(word)));
    shown += attempt.hidden ? 0 : 1;
  }
  count.textContent = `${shown} of ${attempts.length} shown`;
};

if (count) {
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      filter();
    });
  }
  caseOf.addEventListener("change", filter);
  find.addEventListener("input", filter);
  document.getElementById("open").addEventListener("click", () => {
    const shown = attempts.filter((attempt) => !attempt.hidden);
    const open = !shown.every((attempt) => attempt.open);
    for (const attempt of shown) attempt.open = open;
  });
  filter();
}

// A link to an attempt opens it, and takes it out of whatever hides it.
const follow = () => {
  const attempt = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!attempt || !attempt.matches("details.attempt")) return;
  attempt.hidden = false;
  attempt.open = true;
  attempt.scrollIntoView();
};
window.addEventListener("hashchange", follow);
follow();
