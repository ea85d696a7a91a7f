"use strict";
(() => {
  const rows = [...document.querySelectorAll("#list tbody tr")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const [bar, find, why, said, back, on] = [
    "controls", "find", "why-only", "found", "back", "on",
  ].map((id) => document.getElementById(id));
  const size = 20;
  let page = 0;
  const show = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const hits = rows.filter((row, i) =>
      (!why.value || row.dataset.why === why.value) && words.every((w) => texts[i].includes(w)));
    const last = Math.max(0, Math.ceil(hits.length / size) - 1);
    page = Math.min(Math.max(page, 0), last);
    const seen = new Set(hits.slice(page * size, (page + 1) * size));
    for (const row of rows) row.hidden = !seen.has(row);
    said.textContent = hits.length
      ? `${page * size + 1} to ${page * size + seen.size} of ${hits.length} shown rows`
      : "no row has these words";
    back.disabled = page === 0;
    on.disabled = page === last;
  };
  const anew = () => { page = 0; show(); };
  const turn = (by) => () => {
    page += by;
    show();
    document.getElementById("rows").scrollIntoView();
  };
  find.addEventListener("input", anew);
  why.addEventListener("change", anew);
  back.addEventListener("click", turn(-1));
  on.addEventListener("click", turn(1));
  for (const part of document.querySelectorAll(".controls")) part.hidden = false;
  if (bar) show();
})();
