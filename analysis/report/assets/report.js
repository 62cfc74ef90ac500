// What the page does beyond its tables and pictures: charts, the way from a point to its run, and
// light and dark. Globals: Plot (Observable Plot) and d3. Data of charts: analysis/draw/charts.py.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("live");

  // One element with attributes and children.
  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };

  // ---- light and dark -------------------------------------------------------------------------
  const THEMES = ["auto", "light", "dark"];
  const kept = (value) => {
    try { // a browser may keep nothing for files
      if (value !== undefined) localStorage.setItem("cflows-theme", value);
      return localStorage.getItem("cflows-theme");
    } catch { return null; }
  };
  const theme = make("button", { type: "button", title: "Colours of this page" });
  const paint = (name) => {
    if (name === "auto") root.removeAttribute("data-theme"); else root.dataset.theme = name;
    theme.textContent = `Theme: ${name}`;
  };
  let themed = THEMES.includes(kept()) ? kept() : "auto";
  paint(themed);
  theme.addEventListener("click", () => {
    themed = THEMES[(THEMES.indexOf(themed) + 1) % THEMES.length];
    kept(themed);
    paint(themed);
  });
  document.querySelector("header").append(theme);

  // ---- runs -----------------------------------------------------------------------------------
  const box = document.querySelector(".runs");
  // Charts number runs in the order in which the table has them before anyone sorts it.
  const rows = box ? [...box.querySelectorAll("tbody > tr[id]")] : [];
  const names = box ? [...box.querySelectorAll("thead th")].map((th) => th.textContent) : [];
  const told = box ? Number(box.dataset.keys) : 0;
  const nameOf = (row) => row.id.slice("run-".length);
  const hashOf = (row) => `#${encodeURIComponent(row.id)}`;
  const configuration = (row) => [...row.cells].slice(1, told + 1)
    .map((cell, i) => `${names[i + 1]} ${cell.textContent}`).join(", ");

  const copyable = (text) => {
    const code = make("code", {}, text);
    const button = make("button", { type: "button" }, "Copy");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch { // not allowed here: marked, so that the keyboard copies it
        getSelection().selectAllChildren(code);
        button.textContent = "Press Ctrl+C";
      }
    });
    return make("p", {}, code, button);
  };
  const close = () => box?.querySelectorAll("tr.card").forEach((card) => {
    card.previousElementSibling?.classList.remove("open");
    card.remove();
  });
  const open = () => {
    let id;
    try { id = decodeURIComponent(location.hash.slice(1)); } catch { return; }
    const row = rows.find((one) => one.id === id);
    if (!row) return;
    close();
    const steps = `analysis.load(${JSON.stringify(box.dataset.results)})`
      + `.run_steps(${JSON.stringify(nameOf(row))})`;
    const cell = make("td", { colspan: row.cells.length }, make("div", {},
      make("b", {}, `Run ${nameOf(row)}`), ` ${configuration(row)}`,
      copyable(steps), copyable(`analysis.plot_loss(${steps})`)));
    row.classList.add("open");
    row.after(make("tr", { class: "card" }, cell));
    row.setAttribute("tabindex", "-1");
    row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "center" }); // clear of the heading that stays on top
  };
  box?.addEventListener("sort-start", close);
  box?.addEventListener("click", (event) => { // also where the address says this run already
    if (event.target.closest("td a")) setTimeout(open);
  });
  addEventListener("hashchange", open);
  open();

  // ---- charts ---------------------------------------------------------------------------------
  const SYMBOLS = { o: "circle", s: "square", D: "diamond", d: "diamond", "^": "triangle",
    h: "hexagon", X: "times", P: "plus", "*": "star", p: "wye", "|": "asterisk",
    v: { draw(context, size) { // a triangle that points down
      const r = Math.sqrt(size / 2);
      context.moveTo(-r, -0.7 * r); context.lineTo(r, -0.7 * r); context.lineTo(0, r);
      context.closePath();
    } } };
  const said = (value) => {
    if (value == null) return "-";
    const short = Number(value.toPrecision(4));
    return short && Math.abs(short) < 1e-3 ? short.toExponential() : String(short);
  };
  const colour = ([light, dark]) => { // a variable, so that a change of theme draws nothing anew
    const name = `--c${light.slice(1)}`;
    root.style.setProperty(name, `light-dark(${light}, ${dark})`);
    return `var(${name})`;
  };
  const flat = (scale) => (scale === "decay" ? (v) => -Math.log10(1 - v) : (v) => v);

  // Round numbers of a logarithmic axis: decades if there are many, else 1, 2, 5 of each.
  const logTicks = ([low, high]) => {
    const decades = Math.log10(high / low);
    if (decades < 0.7) return d3.ticks(low, high, 4);
    const every = Math.max(1, Math.ceil(decades / 5));
    const found = [];
    for (let k = Math.floor(Math.log10(low)); k <= Math.ceil(Math.log10(high)); k += 1)
      for (const m of decades < 2.2 ? [1, 2, 5] : [1])
        if (decades < 2.2 || k % every === 0) found.push(Number(`${m}e${k}`));
    return found.filter((v) => v >= low && v <= high);
  };
  const axis = (given, margin) => {
    const f = flat(given.scale), domain = given.domain.map(f);
    const log = given.scale === "log";
    const words = new Map((given.ticks ?? []).map(([at, word]) => [f(at), word]));
    return { type: log ? "log" : "linear", domain, label: given.label, labelArrow: "none",
      labelAnchor: "center", grid: true,
      ticks: words.size ? [...words.keys()] : log ? logTicks(domain) : margin,
      tickFormat: words.size ? (v) => words.get(v) : (v) => said(v) };
  };

  // Points of a chart as records: what a mark draws and a tip says.
  const pointsOf = (series, chart) => {
    const [fx, fy] = [flat(chart.x.scale), flat(chart.y.scale)];
    return series.x.map((x, i) => ({ x: fx(x), y: fy(series.y[i]), series, shown: [x, series.y[i]],
      low: series.low?.[i] ?? NaN, high: series.high?.[i] ?? NaN,
      row: series.run === undefined ? undefined : rows[series.run[i]] }));
  };
  const words = (point, chart) => {
    const [x, y] = point.shown;
    const tick = chart.x.ticks?.find(([at]) => at === x);
    const band = Number.isFinite(point.low) ? ` [${said(point.low)}, ${said(point.high)}]` : "";
    return [point.series.name, `${chart.x.label}: ${tick ? tick[1] : said(x)}`,
      `${chart.y.label}: ${said(y)}${band}`,
      ...(point.row ? [`run ${nameOf(point.row)}`, configuration(point.row)] : [])]
      .filter(Boolean);
  };
  const marksOf = (series, points, chart) => {
    const tint = colour(series.colour);
    if (series.rule !== undefined) return [
      Plot.ruleY([series.rule], { stroke: "currentColor", strokeDasharray: "5 3" }),
      Plot.text([series.rule], { y: (v) => v, text: () => series.name, frameAnchor: "right",
        dy: -6, fill: "currentColor" })];
    const symbol = SYMBOLS[series.symbol] ?? "circle";
    if (series.dots) return [Plot.dot(points, { x: "x", y: "y", fill: tint, clip: true,
      r: 2.6, symbol, fillOpacity: points.length < 200 ? 0.6 : 0.3,
      href: (p) => (p.row ? hashOf(p.row) : undefined) })];
    const curve = series.step ? "step-after" : "linear";
    const found = [Plot.line(points, { x: "x", y: "y", stroke: tint, curve, clip: true,
      strokeWidth: series.thin ? 0.7 : 1.7, strokeOpacity: series.thin ? 0.7 : 1, strokeDasharray: series.dash?.join(" ") })];
    if (series.low) found.unshift(Plot.areaY(points, { x: "x", y1: "low", y2: "high",
      fill: tint, fillOpacity: 0.16, curve, clip: true }));
    if (series.symbol) found.push(Plot.dot(points, { x: "x", y: "y", fill: tint, r: 4, symbol,
      clip: true }));
    return found;
  };

  // One panel: its own drawing, redrawn when its width or the choice in the legend changes.
  const panel = (chart, hidden, say) => {
    const holder = make("div");
    const element = make("div", { class: "panel", tabindex: "0", role: "group",
      "aria-label": `${chart.title} ${chart.y.label} against ${chart.x.label}. `
        + "Arrow keys go from point to point, Enter opens a point's run." },
    make("h4", {}, chart.title || ""), holder);
    if (chart.note) { holder.append(make("p", { class: "soft" }, chart.note)); return element; }
    const all = chart.series.map((series) => (series.rule === undefined
      ? pointsOf(series, chart) : []));
    let points = [], at = -1, plot = null, width = 0;
    const visit = (row) => { location.hash = hashOf(row); };
    const render = () => {
      const shown = chart.series.map((series, i) => [series, all[i]])
        .filter(([series]) => !hidden.has(series.name));
      const inside = (v, [low, high]) => v >= Math.min(low, high) && v <= Math.max(low, high);
      const x = axis(chart.x, Math.max(3, Math.round(width / 90))), y = axis(chart.y, 5);
      points = shown.flatMap(([, some]) => [...some].sort((a, b) => a.x - b.x))
        .filter((p) => inside(p.x, x.domain) && inside(p.y, y.domain));
      plot = Plot.plot({ width, height: 240, marginLeft: 56, marginBottom: 40, marginTop: 12,
        marginRight: 12, x, y, style: { fontSize: "11px", background: "transparent" },
        marks: [...shown.flatMap(([series, some]) => marksOf(series, some, chart)),
          Plot.tip(points, Plot.pointer({ x: "x", y: "y", title: (p) => words(p, chart).join("\n"),
            maxRadius: 30, fontSize: 12, lineWidth: 24 }))] });
      plot.querySelectorAll("a").forEach((a) => a.setAttribute("tabindex", "-1"));
      plot.addEventListener("input", () => say(plot.value && words(plot.value, chart),
        plot.value?.row));
      plot.addEventListener("click", (event) => {
        if (event.pointerType === "touch") event.preventDefault(); // a finger reads first
        else if (plot.value?.row && !event.target.closest("a")) visit(plot.value.row);
      }, true);
      at = -1;
      holder.replaceChildren(plot);
    };
    const point = () => { // as if a pointer were there, so that the tip shows
      const p = points[at], frame = plot.getBoundingClientRect(), zoom = frame.width / width;
      plot.dispatchEvent(new PointerEvent("pointermove", { pointerType: "pen",
        clientX: frame.left + zoom * plot.scale("x").apply(p.x),
        clientY: frame.top + zoom * plot.scale("y").apply(p.y) }));
      say(words(p, chart), p.row);
    };
    const another = (step) => { // the next series that has points
      const now = points[at]?.series;
      let next = at;
      do next += step; while (points[next] && points[next].series === now);
      return points[next] ? points.findIndex((p) => p.series === points[next].series) : at;
    };
    element.addEventListener("keydown", (event) => {
      if (!points.length) return;
      const last = points.length - 1;
      const moves = { ArrowRight: () => Math.min(at + 1, last), ArrowLeft: () => Math.max(at - 1, 0),
        ArrowDown: () => another(1), ArrowUp: () => another(-1), Home: () => 0, End: () => last };
      if (event.key === "Enter" && points[at]?.row) visit(points[at].row);
      else if (event.key in moves) { at = Math.max(0, moves[event.key]()); point(); }
      else return;
      event.preventDefault();
    });
    new ResizeObserver(() => {
      const now = Math.floor(holder.clientWidth);
      if (now > 0 && now !== width) { width = now; if (plot) render(); }
    }).observe(holder);
    new IntersectionObserver((seen, watcher) => { // drawn when first looked at
      if (!seen.some((one) => one.isIntersecting)) return;
      watcher.disconnect();
      width = Math.floor(holder.clientWidth) || 300;
      render();
    }, { rootMargin: "400px" }).observe(element);
    holder.style.minHeight = "240px";
    element.addEventListener("choice", () => { if (plot) render(); });
    return element;
  };
  const sample = (series) => { // a series' look in the legend
    const plot = Plot.plot({ width: 30, height: 14, margin: 0, axis: null,
      x: { domain: [0, 2] }, y: { domain: [0, 2] }, marks: [
        ...(series.dots ? [] : [Plot.line([[0, 1], [2, 1]], { stroke: colour(series.colour),
          strokeWidth: 2, strokeDasharray: series.dash?.join(" ") })]),
        ...(series.dots || series.symbol ? [Plot.dot([[1, 1]], { fill: colour(series.colour),
          r: 4, symbol: SYMBOLS[series.symbol] ?? "circle" })] : [])] });
    plot.setAttribute("aria-hidden", "true");
    return plot;
  };

  for (const data of document.querySelectorAll("script.chart")) {
    const figure = data.parentElement;
    const { columns, panels: charts } = JSON.parse(data.textContent);
    const hidden = new Set(), looks = new Map();
    for (const series of charts.flatMap((chart) => chart.series))
      if (series.name && series.rule === undefined && !looks.has(series.name))
        looks.set(series.name, series);
    const line = make("output", { class: "said", "aria-live": "polite" });
    const say = (text, row) => {
      line.replaceChildren(...(text ?? []).flatMap((part, i) => {
        const shown = row && part === `run ${nameOf(row)}`
          ? make("a", { href: hashOf(row) }, part) : part;
        return i ? [" · ", shown] : [shown];
      }));
    };
    const panels = charts.map((chart) => panel(chart, hidden, say));
    const legend = make("div", { class: "legend" }, ...[...looks].map(([name, series]) => {
      const button = make("button", { type: "button", "aria-pressed": "true" },
        sample(series), name);
      button.addEventListener("click", () => {
        if (!hidden.delete(name)) hidden.add(name);
        button.setAttribute("aria-pressed", String(!hidden.has(name)));
        panels.forEach((one) => one.dispatchEvent(new Event("choice")));
      });
      return button;
    }));
    figure.classList.add("charted");
    figure.prepend(make("div", { class: "charts", style: `--columns: ${columns}` }, ...(looks.size ? [legend] : []),
      ...panels, line));
    const swap = make("button", { type: "button" }, "Show the figure for print");
    swap.addEventListener("click", () => {
      const printed = figure.classList.toggle("printed");
      swap.textContent = printed ? "Show the chart" : "Show the figure for print";
    });
    figure.append(swap);
  }
})();
