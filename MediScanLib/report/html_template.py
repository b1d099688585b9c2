"""The page of predictions as Jinja templates; everything put into them is escaped."""

# ruff: noqa: E501 - markup

HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light">
<title>{{ title }}</title>
<style>
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #1c1c1e; background: #fff;
  margin: 1.4rem auto; max-width: 60rem; padding: 0 1.2rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .6rem 0; } h2 { font-size: 1.25rem; margin: 0 0 .6rem; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .3rem; } p { margin: .3rem 0 .7rem; max-width: 52rem; }
.quiet { color: #5f6368; font-size: .9rem; } .notice { font-size: .9rem; font-weight: 600; }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: .4rem 0 .8rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #dadce0; text-align: left; vertical-align: top; overflow-wrap: break-word; }
th { font-weight: 600; border-bottom: 2px solid #80868b; vertical-align: bottom; } td.number, th.number { text-align: right; white-space: nowrap; }
td small { display: block; color: #5f6368; } .facts th { border-bottom: 1px solid #dadce0; vertical-align: top; padding-right: 1.2rem; white-space: nowrap; }
.defer { background: #fdecea; border: 2px solid #b3261e; border-radius: 4px; padding: .7rem 1rem; margin: .8rem 0 1.2rem; }
.defer h2, .defer h3 { margin: 0 0 .3rem; font-size: 1.15rem; } .defer ul, .warn ul { margin: .2rem 0; padding-left: 1.2rem; }
.warn { background: #fff4e0; border-left: 4px solid #e69f00; padding: .5rem .8rem; margin: .6rem 0 1rem; }
.answer { font-size: 1.2rem; margin: .2rem 0 .8rem; } .present, .unsure { font-weight: 700; } .absent { color: #5f6368; }
.bar { width: 9rem; height: .8rem; display: block; margin-top: .3rem; }
.contents .input { overflow-wrap: anywhere; min-width: 8rem; } .contents .short { min-width: 6.5rem; } .chart { width: 100%; height: auto; max-width: 52rem; }
img { max-width: 100%; height: auto; display: block; } figure { margin: .4rem 0 1.2rem; } figcaption { font-size: .9rem; margin-bottom: .3rem; }
section { border-top: 3px solid #80868b; margin-top: 2.4rem; padding-top: 1rem; } code { font-size: .85em; overflow-wrap: anywhere; }
a { color: #0b57d0; }
@media (max-width: 34rem) { body { padding: 0 .8rem; } .bar { width: 5.5rem; } th, td { padding-right: .55rem; } .facts th { white-space: normal; } }
@media print { body { margin: 0; max-width: none; font-size: 11pt; } h3, tr, figure, .defer, .warn { break-inside: avoid; }
  h3 { break-after: avoid; } .wide { overflow: visible; } section { break-before: page; border: 0; } a { color: inherit; text-decoration: none; } }
</style>
</head>
<body>
<p class="notice">{{ notice }}</p>
{% if contents is not none %}
<h1>{{ title }}</h1>
<p>{{ counts }}</p>
<div class="wide"><table class="contents">
<tr><th class="number">No.</th><th>Input</th><th>Most likely</th><th>To mind</th></tr>
{% for line in contents %}
<tr><td class="number">{{ line.number }}</td><td class="input"><a href="#s{{ line.number }}"><bdi>{{ line.input }}</bdi></a></td>
<td class="short">{{ line.answer }}</td><td class="short">{% if line.mind %}<strong>{{ line.mind }}</strong>{% endif %}</td></tr>
{% endfor %}
</table></div>
{% endif %}
"""

SECTION = """
{% if number %}<section id="s{{ number }}">{% endif %}
{% if p.certainty.deferred %}
<div class="defer" role="alert">
<h2>Left to a human: do not lean on this prediction</h2>
<ul>{% for reason in p.certainty.reasons %}<li>{{ reason.message }}</li>{% else %}<li>The model gives no reason.</li>{% endfor %}</ul>
</div>
{% endif %}
{% if number %}<h2>{{ number }}. <bdi>{{ name }}</bdi></h2>{% else %}<h1><bdi>{{ name }}</bdi></h1>{% endif %}
{% if p.input != name %}<p class="quiet"><bdi>{{ p.input }}</bdi></p>{% endif %}
{% if p.certainty.reasons and not p.certainty.deferred %}
<div class="warn"><strong>Reasons for doubt</strong><ul>{% for reason in p.certainty.reasons %}<li>{{ reason.message }}</li>{% endfor %}</ul></div>
{% endif %}
{% if p.image.warnings or p.provenance.notes %}
<div class="warn"><strong>To mind</strong><ul>
{% for text in p.image.warnings %}<li>{{ text }}</li>{% endfor %}
{% for text in p.provenance.notes %}<li>{{ text }}</li>{% endfor %}
</ul></div>
{% endif %}
<p class="answer">{% if p.certainty.deferred %}If it were to decide, the model would say: {% endif %}<strong>{{ top.label }}</strong>, probability {{ top.probability | probability }}{% if not top.calibrated %} (not calibrated){% endif %}: <strong>{{ top.decision }}</strong>.
{% if p.severity.applicable %}Severity <strong>{{ p.severity.grade or "without a grade" }}</strong>.{% endif %}</p>

<h3>Findings</h3>
<div class="wide"><table>
<tr><th>Finding</th><th class="number">Probability</th><th></th><th>Decision</th><th>Threshold</th></tr>
{% for f in findings %}
<tr><td>{{ f.label }}</td><td class="number">{{ f.probability | probability }}{% if f.interval %}<small>{{ f.interval[0] | probability }} to {{ f.interval[1] | probability }}</small>{% endif %}{% if not f.calibrated %}<small>not calibrated</small>{% endif %}</td>
<td><svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{{ f.probability | probability }} of 1, threshold {{ '%.2f' | format(f.threshold) }}">
<rect x="0" y="0" width="100" height="10" fill="#e8eaed"/><rect x="0" y="0" width="{{ '%.2f' | format(f.probability * 100) }}" height="10" fill="{{ '#1a5fb4' if f.decision == 'present' else '#8a919a' }}"/>
<rect x="{{ '%.2f' | format([f.threshold * 100, 99] | min) }}" y="0" width="1" height="10" fill="#1c1c1e"/></svg></td>
<td class="{{ f.decision }}">{{ f.decision }}</td><td>{{ "%.2f" | format(f.threshold) }}{% if f.operating_point %}<small>{{ f.operating_point }}</small>{% endif %}</td></tr>
{% endfor %}
</table></div>
<p class="quiet">The dark tick on a bar is the threshold from which on the finding counts as present; near to it the decision is “unsure”. {% if calibrated == "all" %}The probabilities are calibrated on held-out data.{% elif calibrated == "none" %}<strong>The probabilities are not calibrated: read them as a ranking, not as frequencies.</strong>{% else %}<strong>Some probabilities are not calibrated.</strong>{% endif %} {% if p.certainty.novelty is not none %}Distance from the training images: {{ "%.2f" | format(p.certainty.novelty) }}, where 1 is the farthest that is accepted.{% endif %}{% if p.certainty.uncertainty %} Below a probability: between which values 90 % of {{ p.certainty.uncertainty.samples }} answers lie that the model gives with parts of its features left out.{% endif %}</p>

{% if trust or p.certainty.sets or p.similar_cases or p.modalities %}
<h3>How sure</h3>
{% if trust %}<ul>{% for sentence in trust %}<li>{{ sentence }}</li>{% endfor %}</ul>{% endif %}
{% if p.certainty.sets %}
<div class="wide"><table>
<tr><th>Coverage</th><th>Findings that cannot be excluded</th></tr>
{% for set in p.certainty.sets %}<tr><td>{{ "%.0f" | format(100 * set.coverage) }} %</td><td>{{ set.labels | join(", ") or "none" }}</td></tr>{% endfor %}
</table></div>
<p class="quiet">At a coverage of 90 % the true finding is among these in 90 % of the studies that have it, whichever it is, as far as this image is like those the model was tested on.</p>
{% endif %}
{% if p.modalities %}
<div class="wide"><table>
<tr><th>Finding</th><th class="number">Knowing nothing</th><th class="number">The image</th><th class="number">The clinical values</th></tr>
{% for share in p.modalities %}<tr><td>{{ share.finding }}</td><td class="number">{{ share.neither | odds }}</td><td class="number">{{ share.image | factor }}</td><td class="number">{{ share.record | factor }}</td></tr>{% endfor %}
</table></div>
<p class="quiet">The probability that the model would give without image and values, and the factor by which each changed the odds of the finding.</p>
{% endif %}
{% if p.similar_cases %}
<div class="wide"><table>
<tr><th>Nearest training cases</th><th>Data set</th><th>Patient</th><th class="number">Distance</th><th>Image</th></tr>
{% for case in p.similar_cases %}<tr><td>{{ case.label }}</td><td>{{ case.source }}{% if case.view %}, {{ case.view }}{% endif %}</td><td>{{ case.sex or "" }}{% if case.age_years is not none %} about {{ case.age_years }}{% endif %}</td><td class="number">{{ "%.2f" | format(case.distance) }}</td><td>{{ case.image or "not to be shown" }}<small>{{ case.licence }}</small></td></tr>{% endfor %}
</table></div>
<p class="quiet">Near in the features that the network looks at, which need not be what a reader would call alike. A distance of 1 is the farthest that is accepted as known.</p>
{% endif %}
{% endif %}

<h3>Severity</h3>
{% if p.severity.applicable %}
<p>{{ p.severity.grade or "No grade" }}{% if p.severity.value is not none %}: {{ "%.1f" | format(p.severity.value) }} on {{ p.severity.scale or "its scale" }}{% endif %}{% if p.severity.score is not none %} ({{ "%.2f" | format(p.severity.score) }} of the maximum){% endif %}.</p>
{% else %}<p>Not applicable{% if p.severity.reason %}: {{ p.severity.reason }}{% else %}.{% endif %}</p>{% endif %}

<h3>Where</h3>
{% for picture in pictures %}
<figure><figcaption>Heat map of <strong>{{ picture.label }}</strong>{% if picture.slice is not none %}, slice {{ picture.slice }}{% endif %}</figcaption>
<img alt="The image, and the image under the heat map of {{ picture.label }}" src="data:image/jpeg;base64,{{ picture.base64 }}"></figure>
{% endfor %}
{% if left_out %}<p class="quiet">Pictures are left out here: the page holds as many as a page should.</p>{% endif %}
{% if p.heat_maps %}
<div class="wide"><table>
<tr><th>Finding</th><th>Hottest at (slice, row, column)</th><th>Position, LPS mm</th><th class="number">Heat</th></tr>
{% for map in p.heat_maps %}
{% if map.peak <= 0 %}<tr><td>{{ map.label }}</td><td>nowhere</td><td></td><td class="number">0.00</td></tr>
{% else %}
<tr><td>{{ map.label }}</td><td>{{ map.index | join(", ") }}</td><td>{% if map.position is none %}the image has no spacing{% else %}{% for value in map.position %}{{ "%.1f" | format(value) }}{{ ", " if not loop.last }}{% endfor %}{% endif %}</td>
<td class="number">{{ "%.2f" | format(map.relative_peak) }}</td></tr>
{% endif %}
{% endfor %}
</table></div>
<p class="quiet">By {{ p.heat_maps[0].method }}{% if p.heat_maps[0].against %}, what speaks for a finding and against {{ p.heat_maps[0].against }}{% endif %}. Heat 1 is {{ p.heat_maps[0].scale_meaning }}. Slices, rows and columns count from 0.</p>
{% else %}<p>No heat maps were made.</p>{% endif %}

{% if curve or p.volume_rule %}
<h3>Slices</h3>
{% if curve %}
<svg class="chart" viewBox="0 0 720 250" role="img" aria-label="{{ curve.says }}">
{% for tick in curve.ticks_y %}<line x1="40" x2="580" y1="{{ tick.y }}" y2="{{ tick.y }}" stroke="#dadce0"/><text x="34" y="{{ tick.y + 4 }}" font-size="12" text-anchor="end" fill="#5f6368">{{ tick.text }}</text>{% endfor %}
{% for tick in curve.ticks_x %}<text x="{{ tick.x }}" y="236" font-size="12" text-anchor="{{ tick.anchor }}" fill="#5f6368">{{ tick.text }}</text>{% endfor %}
{% for line in curve.lines %}<polyline points="{{ line.points }}" fill="none" stroke="{{ line.color }}" stroke-width="{{ line.width }}" stroke-dasharray="{{ line.dashes }}" stroke-linejoin="round"/>
<line x1="584" x2="606" y1="{{ line.label_y - 4 }}" y2="{{ line.label_y - 4 }}" stroke="{{ line.color }}" stroke-width="{{ line.width }}" stroke-dasharray="{{ line.dashes }}"/>
<text x="612" y="{{ line.label_y }}" font-size="13" fill="{{ line.color }}" font-weight="{{ 700 if line.width > 2 else 400 }}">{{ line.label }}</text>{% endfor %}
</svg>
<p class="quiet">{{ curve.says }}</p>
{% endif %}
{% if p.volume_rule %}<p class="quiet">{{ p.volume_rule }}</p>{% endif %}
{% endif %}

<h3>Clinical values</h3>
{% if used %}
<div class="wide"><table class="facts">
{% for value in used %}<tr><th>{{ value.title }}</th><td>{{ value.text }}{% if value.prefilled %}<small>from the image header, not entered</small>{% endif %}</td></tr>{% endfor %}
</table></div>
{% else %}<p>None was used.</p>{% endif %}
{% if missing %}<p class="quiet">Unknown: {{ missing | join(", ") }}.</p>{% endif %}
{% if unlearned %}<p class="quiet">Given but not used, since the model never learned from such a value: {{ unlearned | join(", ") }}.</p>{% endif %}
{% if influence %}
<h3>What the clinical values did</h3>
<div class="wide"><table>
<tr><th></th>{% for column in influence.columns %}<th class="number">{{ column }}</th>{% endfor %}</tr>
<tr><td>Probability with none of them</td>{% for value in influence.unknown %}<td class="number">{{ value | odds }}</td>{% endfor %}</tr>
{% for row in influence.rows %}<tr><td>{{ row.title }}</td>{% for value in row.factors %}<td class="number">{{ value }}</td>{% endfor %}</tr>{% endfor %}
</table></div>
<p class="quiet">The factor by which knowing a value changed the odds of a finding: above 1 it spoke for the finding, below 1 against it.</p>
{% endif %}

<h3>Image</h3>
<div class="wide"><table class="facts">
{% for title, text in image %}<tr><th>{{ title }}</th><td>{{ text }}</td></tr>{% endfor %}
</table></div>
<h3>Made by</h3>
<div class="wide"><table class="facts">
{% for title, text in origin %}<tr><th>{{ title }}</th><td>{{ text }}</td></tr>{% endfor %}
</table></div>
{% if p.notice != notice %}<p class="notice">{{ p.notice }}</p>{% endif %}
{% if number %}</section>{% endif %}
"""

FAILURE = """
{% if number %}<section id="s{{ number }}"><h2>{{ number }}. <bdi>{{ name }}</bdi></h2>{% else %}<h1><bdi>{{ name }}</bdi></h1>{% endif %}
<div class="defer"><h3>There is no prediction</h3><p>{{ message }}</p></div>
{% if number %}</section>{% endif %}
"""

FOOT = """
<p class="notice">{{ notice }}</p>
</body>
</html>
"""
