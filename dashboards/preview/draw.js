// Draws a dashboard: runs the queries of its panels on a Prometheus and draws what they give. A preview, not Grafana.
// Address: page.html?dashboard=FILE&prometheus=URL&start=SECONDS&end=SECONDS&scrape=SECONDS&faster=FACTOR&VARIABLE=VALUE
const asked = new URLSearchParams(location.search);
const [start, end, scrape, faster] = ['start', 'end', 'scrape', 'faster'].map((name) => Number(asked.get(name)));
const COLUMN = (document.documentElement.clientWidth - 16) / 24;
const UNIT = 33;
const COLORS = {
  green: '#73bf69', 'light-green': '#96d98d', blue: '#5794f2', 'light-blue': '#8ab8ff', orange: '#ff9830', red: '#f2495c', purple: '#b877d9', yellow: '#fade2a', 'dark-yellow': '#e0b400', 'dark-red': '#c4162a',
};
const PALETTE = ['#73bf69', '#f2cc0c', '#8ab8ff', '#ff780a', '#f2495c', '#5794f2', '#b877d9', '#705da0', '#37872d', '#fade2a', '#447ebc', '#c15c17', '#890f02', '#0a437c', '#6d1f62', '#584477'];
const GAP = '#8e8ea0';

const color = (name) => COLORS[name] ?? name;
const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const seconds = (duration) => ({ s: 1, m: 60, h: 3600 })[duration.at(-1)] * parseFloat(duration);

// === Questions ===

let values = {};

/** The step of a panel and what Grafana works out from it. */
function times(panel, width) {
  const least = Math.max(scrape, panel.interval ? seconds(panel.interval) / faster : 0);
  const step = Math.max(least, Math.ceil((end - start) / width));
  const rate = Math.max(step + scrape, 4 * scrape);
  const milliseconds = (time) => `${Math.round(time * 1000)}ms`;
  return { step, __rate_interval: milliseconds(rate), __range: milliseconds(end - start), __interval: milliseconds(step) };
}

const filled = (text, more) => text.replace(/\$(\w+)/g, (_, name) => more[name] ?? values[name]);

async function ask(path, parameters) {
  const answer = await fetch(`${asked.get('prometheus')}/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const { data, error } = await answer.json();
  if (error) throw new Error(error);
  return data;
}

/** The values of the variables: those of the address, else all, else the first. */
async function choose(variables) {
  for (const { name, query, allValue, includeAll } of variables.filter(({ type }) => type === 'query')) {
    const [, selector, label] = query.match(/^label_values\((.*), (\w+)\)$/);
    const special = (value) => value.replace(/[\\^$*+?.()|[\]{}]/g, '\\\\$&');
    if (asked.has(name)) values[name] = includeAll ? special(asked.get(name)) : asked.get(name);
    else values[name] = includeAll ? allValue : (await ask(`label/${label}/values`, { 'match[]': filled(selector, {}) }))[0];
  }
}

/** The series of all targets of a panel: name, labels, points [time, value]. */
async function series(panel, width) {
  const more = times(panel, width);
  const answers = await Promise.all(panel.targets.map(({ expr, instant }) => {
    const query = filled(expr, more);
    return instant ? ask('query', { query, time: end }) : ask('query_range', { query, start, end, step: more.step });
  }));
  const found = answers.flatMap(({ result }, index) => result.map(({ metric, value, values: points }) => {
    const { legendFormat, refId } = panel.targets[index];
    const name = legendFormat.replace(/\{\{(\w+)\}\}/g, (_, label) => metric[label] ?? '').trim();
    return { name, metric, refId, points: (points ?? [value]).map(([time, number]) => [time, Number(number)]).filter(([, number]) => Number.isFinite(number)) };
  }));
  return { step: more.step, found: found.filter(({ points }) => points.length) };
}

// === Words ===

function amount(value, unit) {
  const digits = (number) => String(Number(number.toPrecision(unit === 'ops' || unit === 'reqps' ? 2 : 3)));
  const scaled = (number, units) => {
    const [factor, word] = units.find(([factor]) => Math.abs(number) >= factor) ?? units.at(-1);
    return digits(number / factor) + word;
  };
  if (value === 0 && unit !== 'percentunit') return '0';
  switch (unit) {
    case 'percentunit': return `${digits(value * 100)}%`;
    case 's': return scaled(value, [[3600, ' h'], [60, ' min'], [1, ' s'], [1e-3, ' ms'], [1e-6, ' µs']]);
    case 'bytes': return scaled(value, [[2 ** 30, ' GiB'], [2 ** 20, ' MiB'], [2 ** 10, ' KiB'], [1, ' B']]);
    case 'ops': return `${digits(value)}/s`;
    case 'reqps': return `${digits(value)}/s`;
    case 'dateTimeFromNow': return `${amount(end - value / 1000, 's')} ago`;
    default: return scaled(value, [[1e6, ' Mil'], [1e3, ' K'], [1, '']]);
  }
}

const mapped = (value, mappings = []) => mappings.map(({ options }) => options[value]).find(Boolean);

function threshold(value, { thresholds }) {
  return color(thresholds.steps.filter((step) => step.value === null || value >= step.value).at(-1).color);
}

const clock = (time) => new Date(time * 1000).toISOString().slice(11, 19);

// === Panels ===

/** Some times below, and what annotations mark. */
function timeAxis(x, height, marks) {
  const ticks = [0.1, 0.5, 0.9].map((part) => start + part * (end - start)).map((time) => `<text x="${x(time)}" y="${height - 3}" text-anchor="middle">${clock(time)}</text>`);
  const events = marks.map(({ time, color }) => `<line x1="${x(time)}" x2="${x(time)}" y1="4" y2="${height - 16}" stroke="${color}" stroke-dasharray="3 3"/>`);
  return ticks.join('') + events.join('');
}

/** A square of SVG with axes: what is drawn into it, and how a time and a value become a place. */
function plot(width, height, top, unit, draw, marks) {
  const [left, bottom] = [54, 16];
  const x = (time) => left + (time - start) / (end - start) * (width - left - 8);
  const y = (value) => 6 + (1 - value / top) * (height - bottom - 6);
  const lines = [0, 0.25, 0.5, 0.75, 1].map((part) =>
    `<line x1="${left}" x2="${width - 8}" y1="${y(part * top)}" y2="${y(part * top)}" stroke="#2a2d33"/><text x="${left - 5}" y="${y(part * top) + 3}" text-anchor="end">${amount(part * top, unit)}</text>`);
  return `<svg width="${width}" height="${height}">${lines.join('')}${draw(x, y)}${timeAxis(x, height, marks)}</svg>`;
}

/** A round number above. */
function above(value) {
  const power = 10 ** Math.floor(Math.log10(value || 1));
  return [1, 2, 4, 5, 8, 10].map((step) => step * power).find((round) => round >= value * 1.02) ?? 20 * power;
}

/** Samples in a row. Where a step has none, nothing is known: a gap. */
function unbroken(points, step) {
  const rows = [];
  for (const point of points) {
    if (rows.length && point[0] - rows.at(-1).at(-1)[0] < 1.5 * step) rows.at(-1).push(point);
    else rows.push([point]);
  }
  return rows;
}

const path = (row, x, y, at = 1) => row.map((point, index) => `${index ? 'L' : 'M'}${x(point[0]).toFixed(1)} ${y(point[at]).toFixed(1)}`).join('');

function timeseries(panel, { found, step }, width, height, marks) {
  const { custom, unit } = panel.fieldConfig.defaults;
  const stacked = custom.stacking.mode === 'normal';
  const fixed = Object.fromEntries(panel.fieldConfig.overrides.map(({ matcher, properties }) => [matcher.options, properties.find(({ id }) => id === 'color')?.value.fixedColor]));
  found.forEach((one, index) => { one.color = color(fixed[one.name]) ?? PALETTE[index % PALETTE.length]; });
  const below = new Map();
  for (const one of found) {
    one.shown = one.points.map(([time, value]) => {
      const base = stacked ? below.get(time) ?? 0 : 0;
      if (stacked) below.set(time, base + value);
      return [time, base + value, base];
    });
  }
  const top = above(Math.max(...found.flatMap(({ shown }) => shown.map(([, value]) => value))));
  const legend = panel.options.legend.displayMode === 'table' ? Math.max(0.34 * width, 210) : 0;
  const draw = (x, y) => found.map(({ shown, color }) => {
    if (custom.drawStyle === 'bars') {
      const thick = Math.max(1, (x(start + step) - x(start)) * 0.8);
      return shown.filter(([, value, base]) => value > base).map(([time, value, base]) =>
        `<rect x="${(x(time) - thick).toFixed(1)}" y="${y(value).toFixed(1)}" width="${thick.toFixed(1)}" height="${(y(base) - y(value)).toFixed(1)}" fill="${color}" fill-opacity="0.8"/>`).join('');
    }
    return unbroken(shown, step).map((row) => {
      const line = path(row, x, y);
      const area = stacked ? `<path d="${line}L${path(row.toReversed(), x, y, 2).slice(1)}Z" fill="${color}" fill-opacity="0.3"/>` : '';
      return `${area}<path d="${line}" fill="none" stroke="${color}" stroke-width="1.2" stroke-linecap="round"/>`;
    }).join('');
  }).join('');
  const lines = found.map(({ name, color, points }) => `<tr><td style="width:52%"><span style="color:${color}">▬</span> ${escaped(name)}</td><td>${amount(Math.max(...points.map(([, value]) => value)), unit)}</td><td>${amount(points.at(-1)[1], unit)}</td></tr>`);
  const table = `<div class="legend" style="width:${legend}px"><table><tr><th style="width:52%">Name</th><th>Max</th><th>Last</th></tr>${lines.join('')}</table></div>`;
  return plot(width - legend, height, top, unit, draw, marks) + table;
}

function stat(panel, { found }, width, height) {
  const { defaults } = panel.fieldConfig;
  const points = found[0].points;
  const value = points.at(-1)[1];
  const words = mapped(value, defaults.mappings)?.text ?? amount(value, defaults.unit);
  const shade = threshold(value, defaults);
  const spark = panel.options.graphMode === 'area' && points.length > 1;
  let svg = '';
  if (spark) {
    const top = Math.max(...points.map(([, value]) => value)) || 1;
    const [x, y] = [(time) => (time - start) / (end - start) * width, (value) => 2 + (1 - value / top) * 28];
    const line = path(points, x, y);
    svg = `<svg width="${width}" height="34"><path d="${line}L${x(points.at(-1)[0])} 34L${x(points[0][0])} 34Z" fill="${shade}" fill-opacity="0.15"/><path d="${line}" fill="none" stroke="${shade}"/></svg>`;
  }
  const size = Math.min(34, width / words.length * 1.5);
  return `<div class="number" style="color:${shade};font-size:${size}px;height:${height - (spark ? 34 : 0)}px;line-height:${height - (spark ? 34 : 14)}px">${escaped(words)}</div>${svg}`;
}

function timeline(panel, { found, step }, width, height, marks) {
  const { defaults } = panel.fieldConfig;
  const [left, thick] = [Math.min(190, width * 0.32), Math.min(30, (height - 22) / found.length)];
  const x = (time) => left + Math.max(0, time - start) / (end - start) * (width - left - 8);
  const lines = found.map(({ name, points }, index) => {
    const y = 4 + index * thick;
    const runs = [];
    for (const row of unbroken(points, step)) {
      for (const [index, [time, value]] of row.entries()) {
        if (index && runs.at(-1).value === value) runs.at(-1).end = time;
        else runs.push({ value, begin: time - step, end: time });
      }
    }
    const bars = runs.map(({ value, begin, end }) => `<rect x="${x(begin).toFixed(1)}" y="${y + 1}" width="${(x(end) - x(begin)).toFixed(1)}" height="${thick - 3}" fill="${color(mapped(value, defaults.mappings)?.color ?? GAP)}"/>`);
    return `<text x="${left - 6}" y="${y + thick / 2 + 3}" text-anchor="end">${escaped(name)}</text>${bars.join('')}`;
  });
  return `<svg width="${width}" height="${height}">${lines.join('')}${timeAxis(x, height, marks)}</svg>`;
}

function bargauge(panel, { found }, width, height) {
  const { defaults } = panel.fieldConfig;
  const [left, right, thick] = [Math.min(190, width * 0.32), 64, Math.min(34, height / found.length)];
  const rows = found.map(({ name, points }, index) => {
    const [value, y, room] = [points.at(-1)[1], index * thick, width - left - right];
    const shade = threshold(value, defaults);
    return `<text x="${left - 6}" y="${y + thick / 2 + 3}" text-anchor="end">${escaped(name)}</text><rect x="${left}" y="${y + 3}" width="${room}" height="${thick - 7}" fill="#22252b"/>
      <rect x="${left}" y="${y + 3}" width="${room * Math.min(1, value / defaults.max)}" height="${thick - 7}" fill="${shade}" fill-opacity="0.75"/><text x="${width - right + 6}" y="${y + thick / 2 + 3}" style="fill:${shade}">${amount(value, defaults.unit)}</text>`;
  });
  return `<svg width="${width}" height="${height}">${rows.join('')}</svg>`;
}

function table(panel, { found }, width, height) {
  const { excludeByName, indexByName, renameByName } = panel.transformations.find(({ id }) => id === 'organize').options;
  const property = (wanted) => Object.fromEntries(panel.fieldConfig.overrides.map(({ matcher, properties }) => [matcher.options, properties.find(({ id }) => id === wanted)?.value]));
  const [units, mappings] = [property('unit'), property('mappings')];
  const rows = new Map();
  for (const { metric, refId, points } of found) {
    const labels = Object.fromEntries(Object.entries(metric).filter(([label]) => !excludeByName[label]));
    const key = JSON.stringify(Object.entries(labels).sort());
    rows.set(key, { ...rows.get(key), ...labels, [renameByName[`Value #${refId}`]]: points[0][1] });
  }
  const columns = Object.entries(indexByName).sort(([, a], [, b]) => a - b).map(([name]) => renameByName[name] ?? name);
  const [{ displayName, desc }] = panel.options.sortBy;
  const order = (a, b) => (desc ? -1 : 1) * ((a[displayName] ?? -Infinity) - (b[displayName] ?? -Infinity));
  const cell = (row, column) => row[column] === undefined ? '' : units[column] ? amount(row[column], units[column]) : row[column];
  const colored = (row, column) => {
    const words = mapped(row[column], mappings[column]);
    return words ? `<td style="color:${color(words.color)}">${escaped(words.text)}</td>` : `<td>${escaped(cell(row, column))}</td>`;
  };
  const lines = [...rows.values()].sort(order).map((row) => `<tr>${columns.map((column) => colored(row, column)).join('')}</tr>`);
  return `<div style="height:${height}px;overflow:hidden"><table class="cells"><tr>${columns.map((column) => `<th>${escaped(column)}</th>`).join('')}</tr>${lines.join('')}</table></div>`;
}

function heatmap(panel, { found, step }, width, height, marks) {
  const bounds = found.map((one) => ({ ...one, le: one.name === '+Inf' ? Infinity : Number(one.name) })).sort((a, b) => a.le - b.le);
  const cells = bounds.map(({ points, le }, index) => {
    const lower = new Map(index ? bounds[index - 1].points : []);
    return { le, cells: points.map(([time, value]) => [time, value - (lower.get(time) ?? 0)]) };
  });
  const most = Math.max(...cells.flatMap(({ cells }) => cells.map(([, value]) => value)));
  const [left, thick] = [60, (height - 20) / cells.length];
  const x = (time) => left + Math.max(0, time - start) / (end - start) * (width - left - 8);
  const rows = cells.map(({ le, cells }, index) => {
    const y = 2 + (bounds.length - 1 - index) * thick;
    const squares = cells.filter(([, value]) => value > 1e-9).map(([time, value]) =>
      `<rect x="${x(time - step).toFixed(1)}" y="${y.toFixed(1)}" width="${(x(time) - x(time - step) - 1).toFixed(1)}" height="${(thick - 1).toFixed(1)}" fill="#ff9830" fill-opacity="${(0.15 + 0.85 * (value / most) ** 0.5).toFixed(2)}"/>`);
    return `<text x="${left - 6}" y="${y + thick / 2 + 3}" text-anchor="end">${le === Infinity ? 'longer' : `≤ ${amount(le, 's')}`}</text>${squares.join('')}`;
  });
  return `<svg width="${width}" height="${height}">${rows.join('')}${timeAxis(x, height, marks)}</svg>`;
}

const KINDS = { timeseries, stat, 'state-timeline': timeline, bargauge, table, heatmap };

// === The page ===

/** When something began that an annotation marks: the first of samples in a row. */
async function annotations(list) {
  const marks = [];
  for (const { target, iconColor } of list.filter(({ enable }) => enable)) {
    const { step, found } = await series({ targets: [target] }, 800);
    for (const { points } of found) {
      const begins = points.filter(([time], index) => !index || time - points[index - 1][0] > 1.5 * step);
      marks.push(...begins.map(([time]) => ({ time, color: color(iconColor) })));
    }
  }
  return marks;
}

async function draw() {
  const dashboard = await (await fetch(`/${asked.get('dashboard')}`)).json();
  await choose(dashboard.templating.list);
  const marks = await annotations(dashboard.annotations.list);
  const chosen = ['instance', 'supervisor'].filter((name) => asked.has(name)).map((name) => `${name} ${asked.get(name)}`).join(', ') || 'All';
  document.querySelector('header').innerHTML = `<b>${escaped(dashboard.title)}</b> &nbsp; ${escaped(chosen)} &nbsp; ${clock(start)} to ${clock(end)} UTC &nbsp; A preview of the panels’ own queries, not Grafana. Dashed: a supervisor gave up.`;
  const grid = document.getElementById('grid');
  await Promise.all(dashboard.panels.map(async (panel) => {
    const box = document.createElement('div');
    const { x, y, w, h } = panel.gridPos;
    const [width, height] = [w * COLUMN - 6, h * UNIT - 6];
    box.style.cssText = `left:${x * COLUMN}px;top:${y * UNIT}px;width:${width}px;height:${height}px`;
    box.className = panel.type === 'row' ? 'row' : 'panel';
    grid.append(box);
    if (panel.type === 'row') {
      box.textContent = panel.title;
      return;
    }
    const data = await series(panel, width);
    if (!data.found.length) await fetch(`/wrong?${encodeURIComponent(`no data in ${dashboard.title}, ${panel.title}`)}`);
    const content = data.found.length ? KINDS[panel.type](panel, data, width - 2, height - 26, marks) : '<div class="none">No data</div>';
    box.innerHTML = `<h2>${escaped(panel.title)}</h2>${content}`;
  }));
}

draw().catch((error) => {
  document.querySelector('header').textContent = `Not drawn: ${error.message}`;
  return fetch(`/wrong?${encodeURIComponent(error.message)}`);
});
