"""The report as a Jinja template; everything put into it is escaped."""

# ruff: noqa: E501 - markup

from ..evaluating.page_template import MACROS, STYLE

_OWN_STYLE = """.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: .3rem 0 .9rem; } .tiles figure { width: 13.5rem; margin: 0; }
.tiles figcaption { font-size: .8rem; overflow-wrap: anywhere; } .tiles img { background: #000; }
.case { border-top: 1px solid #dadce0; padding-top: .8rem; margin-top: 1rem; } .case h3 { font-size: 1rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
td.name { overflow-wrap: anywhere; max-width: 16rem; } .matrix td { min-width: 5.2rem; text-align: center; } .matrix th { text-align: center; max-width: 9rem; overflow-wrap: anywhere; }
.matrix td small { white-space: normal; } th small { font-weight: 400; color: #5f6368; display: block; } details { margin: .6rem 0 1rem; } summary { cursor: pointer; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; } .readers td { color: #5f6368; }
@media print { .case { break-inside: avoid; } }
"""

_MACROS = """{% macro cell(row, name) %}{% if name in row.figures %}{{ num(row.figures[name]) }}{% else %}<small>not measured</small>{% endif %}{% endmacro %}
{% macro matrix(names, pairs, figure) %}
<div class="wide"><table class="matrix">
<tr><th></th>{% for name in names %}<th>{{ name }}</th>{% endfor %}</tr>
{% for one in names %}<tr><th class="text">{{ one }}</th>
{% for other in names %}{% set pair = pairs[(one, other)] if (one, other) in pairs else none %}
{% if one == other %}<td style="background:#eee">–</td>{% elif pair is none or figure not in pair.figures %}<td><small>undefined</small></td>
{% else %}<td style="background:{{ pair.figures[figure].value | shade }}">{{ num(pair.figures[figure]) }}<small>n = {{ pair.cases }}{% if pair.undefined %}, {{ pair.undefined }} empty{% endif %}</small></td>{% endif %}{% endfor %}</tr>
{% endfor %}
</table></div>{% endmacro %}
"""

TEMPLATE = (
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Validation of {{ subject.models | map(attribute="name") | join(", ") }} on {{ subject.split }}</title>
<style>
"""
    + STYLE
    + _OWN_STYLE
    + """</style>
</head>
<body>
"""
    + MACROS
    + _MACROS
    + """<h1>Validation of {{ subject.models | map(attribute="name") | join(" and ") }} on {{ subject.split }}</h1>
{% if summary.methods %}
<div class="wide"><table class="dense">
<tr><th class="text">Method</th>{% if several %}<th class="text">Model</th>{% endif %}<th>Cases<small>patients</small></th>
{% if marked %}<th>Pointing game</th><th>− blob’s</th><th>IoU<small>at share of peak</small></th><th>Relevance mass</th><th>− marked area</th>{% endif %}
{% if "faithfulness" in subject.checks %}<th>Deletion gain</th><th>Insertion gain</th><th>Better than random</th>{% endif %}
{% if "robustness" in subject.checks %}<th>Steadiness</th>{% endif %}
{% if "randomization" in subject.checks %}<th>All weights shuffled</th>{% endif %}
<th>Cost</th></tr>
{% for row in summary.methods if row.group == "all" %}
<tr{% if not row.model %} class="readers"{% endif %}><td class="text"><strong>{{ row.method }}</strong>{% if row.empty %}<small>{{ row.empty }} empty maps</small>{% endif %}</td>{% if several %}<td class="text name">{{ row.model }}</td>{% endif %}
<td>{{ row.cases }}<small>{{ row.patients }}</small></td>
{% if marked %}<td>{{ cell(row, "pointing game") }}</td><td>{% if row.model %}{{ cell(row, "pointing game - blob's") }}{% endif %}</td>
<td>{{ cell(row, "IoU") }}{% if row.threshold is not none %}<small>at {{ "%.2f" | format(row.threshold) }}</small>{% endif %}</td>
<td>{{ cell(row, "relevance mass") }}</td><td>{% if row.model %}{{ cell(row, "relevance mass - area") }}{% endif %}</td>{% endif %}
{% if "faithfulness" in subject.checks %}{% for name in ("deletion gain", "insertion gain", "better than random") %}<td>{% if row.model %}{{ cell(row, name) }}{% endif %}</td>{% endfor %}{% endif %}
{% if "robustness" in subject.checks %}<td>{% if row.model %}{{ cell(row, "steadiness") }}{% endif %}</td>{% endif %}
{% if "randomization" in subject.checks %}<td>{% if (row.model, row.method) in everything_shuffled %}{{ num(everything_shuffled[(row.model, row.method)]) }}{% endif %}</td>{% endif %}
<td>{% if "relative cost" in row.figures %}{{ "%.1f" | format(row.figures["relative cost"].value) }}×{% endif %}</td></tr>
{% endfor %}
{% for row in summary.readers if marked %}
<tr class="readers"><td class="text">{{ row.rater }}<small>{{ row.group }}, {{ row.label }}</small></td>{% if several %}<td></td>{% endif %}<td>{{ row.images }}</td>
<td>{{ cell(row, "pointing game") }}</td><td></td><td>{{ cell(row, "IoU") }}</td><td>{{ cell(row, "relevance mass") }}</td><td></td>
{% if "faithfulness" in subject.checks %}<td></td><td></td><td></td>{% endif %}{% if "robustness" in subject.checks %}<td></td>{% endif %}{% if "randomization" in subject.checks %}<td></td>{% endif %}<td></td></tr>
{% endfor %}
</table></div>
<p class="quiet">Means over cases with 95 % bootstrap intervals over patients. {% for group, count in subject.cases.items() %}{{ count }} of {{ group }}{{ ", " if not loop.last else ". " }}{% endfor %}
Cost: wall time as a multiple of a prediction without a map.</p>
{% else %}
<p class="warn"><strong>No explanation was compared:</strong> in split {{ subject.split }} there is neither an image that readers marked nor a study with a finding that a model knows.</p>
{% endif %}
<p class="warn"><strong>{{ notice }}</strong>
{% if subject.split == "val" %} The model’s calibration, its operating points and the thresholds of the IoU were chosen on these studies: the figures are too good.{% endif %}</p>
{% if summary.failures %}
<h2>What could not be done</h2>
<p class="warn">{{ summary.failures | length }} pieces are missing in all figures. The same command tries them again.</p>
<ul>{% for failure in summary.failures[:20] %}<li><code>{{ failure.what }}</code>: {{ failure.message }}</li>{% endfor %}</ul>
{% if summary.failures | length > 20 %}<p class="quiet">The others are in validation.json.</p>{% endif %}
{% endif %}
<h2>What to know before quoting a figure</h2>
<ul>{% for text in summary.cautions %}<li>{{ text }}</li>{% endfor %}</ul>
{% if summary.methods %}
<h3>What the columns mean</h3>
<ul class="quiet">
{% if marked %}
<li><strong>Pointing game</strong>: share of maps whose hottest place lies inside the marks; beside it the difference from a Gaussian blob in the middle of the image, which has seen nothing.</li>
<li><strong>IoU</strong>: intersection over union of the marks with the part of the map above a share of its own peak. {% if subject.tuning %}The share was chosen on {{ subject.tuning }} marked images of val, for each method by itself.{% else %}There was no marked image in val to choose the share on: it is not stated.{% endif %}</li>
<li><strong>Relevance mass</strong>: share of the whole map inside the marks; an even map reaches the marked area.</li>
{% endif %}
{% if "faithfulness" in subject.checks %}<li><strong>Deletion and insertion gain</strong>: the places are hidden, or shown, hottest first in {{ subject.steps }} steps, and the finding’s probability is averaged on the way; the gain is over {{ subject.random_orders }} random orders, and above 0 where the model leans on what the map shows. <strong>Better than random</strong>: share of maps that beat nearly all random orders.</li>{% endif %}
{% if "robustness" in subject.checks %}<li><strong>Steadiness</strong>: rank correlation with the map of the same image slightly changed, mean over {{ perturbations | length }} small changes; 1 is unchanged.</li>{% endif %}
{% if "randomization" in subject.checks %}<li><strong>All weights shuffled</strong>: rank correlation with the map of the same network after all that it learned was destroyed. Near 0 is right; near 1 the map shows the image and not the model.</li>{% endif %}
</ul>
{% endif %}
{% if not marked %}
<p>No reader’s marks were given for these images: nothing is said of whether the maps lie on a lesion.</p>
{% endif %}

{% if marked and summary.methods | rejectattr("group", "equalto", "all") | list %}
<h2>By source of the marks</h2>
<div class="wide"><table>
<tr><th class="text">Marks</th><th class="text">Finding</th><th class="text">Method</th>{% if several %}<th class="text">Model</th>{% endif %}<th>Cases</th><th>Marked area</th><th>Pointing game</th><th>− blob’s</th><th>IoU</th><th>Relevance mass</th></tr>
{% for row in summary.methods if row.group != "all" %}
<tr{% if not row.model %} class="readers"{% endif %}><td class="text">{{ row.group }}</td><td class="text">{{ row.label }}</td><td class="text">{{ row.method }}</td>{% if several %}<td class="text name">{{ row.model }}</td>{% endif %}<td>{{ row.cases }}</td>
<td>{% if row.area is not none %}{{ "%.2f" | format(row.area) }}{% endif %}</td><td>{{ cell(row, "pointing game") }}</td><td>{% if row.model %}{{ cell(row, "pointing game - blob's") }}{% endif %}</td><td>{{ cell(row, "IoU") }}</td><td>{{ cell(row, "relevance mass") }}</td></tr>
{% endfor %}
</table></div>
{% endif %}

{% if summary.differences %}
<h2>Methods compared with {{ subject.methods[0] }}</h2>
<p>Paired differences on the same cases: an interval that holds 0 shows no difference.</p>
<div class="wide"><table>
<tr><th class="text">Method</th>{% if several %}<th class="text">Model</th>{% endif %}<th>Cases</th>{% for name in compared %}<th>Δ {{ name }}</th>{% endfor %}</tr>
{% for row in summary.differences %}
<tr><td class="text">{{ row.method }}</td>{% if several %}<td class="text name">{{ row.model }}</td>{% endif %}<td>{{ row.cases }}</td>{% for name in compared %}<td>{{ cell(row, name) }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endif %}

{% if summary.agreement %}
<h2>Agreement</h2>
<p>All maps in cells of the same size that cover the image ({{ cells }} at most). Rank correlation: Spearman’s, over all cells. IoU: of the hottest tenth of each; two maps that have nothing to do with each other reach {{ "%.2f" | format(chance) }}.</p>
{% for kind, within, names, pairs in matrices %}
<h3>{% if kind == "methods" %}Between methods{% if several %}, {{ within }}{% endif %}{% else %}Between models, {{ within }}{% endif %}: rank correlation</h3>
{{ matrix(names, pairs, "rank correlation") }}
<h3>{% if kind == "methods" %}Between methods{% if several %}, {{ within }}{% endif %}{% else %}Between models, {{ within }}{% endif %}: IoU of the hottest tenth</h3>
{{ matrix(names, pairs, "IoU of the hottest tenth") }}
{% if kind == "models" and loop.last %}<p class="quiet">Mean difference of the models’ probabilities of the finding: {% for pair in summary.agreement if pair.kind == "models" and pair.within == within %}{{ pair.first }} and {{ pair.second }} {{ pair.figures["difference of probability"] | value }}{{ "; " if not loop.last else "." }}{% endfor %}</p>{% endif %}
{% endfor %}
{% endif %}

{% if summary.robustness %}
<h2>Small changes of the image</h2>
<p>A reader would hardly see them: {% for text in perturbations.values() %}{{ text }}{{ "; " if not loop.last else "." }}{% endfor %} Beside the maps, what the change did to the model’s answer.</p>
<div class="wide"><table>
<tr><th class="text">Method</th>{% if several %}<th class="text">Model</th>{% endif %}<th class="text">Change</th><th>Cases</th><th>Empty maps</th><th>Rank correlation of the maps</th><th>Change of probability</th><th>Decisions changed</th></tr>
{% for row in summary.robustness %}
<tr><td class="text">{{ row.method }}</td>{% if several %}<td class="text name">{{ row.model }}</td>{% endif %}<td class="text">{{ row.perturbation }}</td><td>{{ row.cases }}</td><td>{{ row.undefined }}</td>
<td>{{ cell(row, "rank correlation") }}</td><td>{{ cell(row, "change of probability") }}</td><td>{{ cell(row, "decisions changed") }}</td></tr>
{% endfor %}
</table></div>
{% endif %}

{% if summary.shuffled %}
<h2>Do the maps depend on what was learned?</h2>
<p>Rank correlation of the maps before and after the weights of a part of the network are shuffled inside each tensor (Adebayo et al., NeurIPS 2018); near 0 is right.</p>
<div class="wide"><table>
<tr><th class="text">Method</th>{% if several %}<th class="text">Model</th>{% endif %}<th class="text">Shuffled</th><th>Maps</th><th>Empty afterwards</th><th>Rank correlation</th></tr>
{% for row in summary.shuffled %}
<tr><td class="text">{{ row.method }}</td>{% if several %}<td class="text name">{{ row.model }}</td>{% endif %}<td class="text">{{ row.stage }}</td><td>{{ row.maps }}</td><td>{{ row.vanished }}</td><td>{% if row.similarity is not none %}{{ num(row.similarity) }}{% else %}<small>all empty</small>{% endif %}</td></tr>
{% endfor %}
</table></div>
{% endif %}

{% if "stress" in subject.checks %}
<h2>Stress tests of the model</h2>
{% if summary.stress %}
<p>Each task within its source, on {% for source, count in subject.stressed.items() %}{{ count }} of {{ source }}{{ ", " if not loop.last else "." }}{% endfor %} Bars are 95 % intervals over patients. The lower pictures show the share that the model leaves to a human: where the AUC falls, it should rise.</p>
{% for model, curves in stress_plots %}
{% if several %}<h3>{{ model }}</h3>{% endif %}
{{ plot(curves.auc, "AUC-ROC within each source by kind and degree of damage") }}
{{ plot(curves.deferred, "Share left to a human by kind and degree of damage") }}
{% endfor %}
<p class="quiet">Known fields: every set of known clinical values of each size counts alike (beyond 20 of a size, 20 are drawn); 0 is the image alone. A study with fewer values keeps those that it has. Noise is white and Gaussian, SD against the range between the 0.5th and 99.5th percentile of the gray values.</p>
<h3>Nothing to see, and a record that says the opposite</h3>
<p>Image hidden: the encoder answers as if there were no image. Black image: every pixel is zero. Record that contradicts the image: healthy values for a study with a finding, those of a severe infection for one without; age and sex stay. Record of another patient: of the same source with another label.</p>
<div class="wide"><table>
<tr><th class="text">Task</th>{% if several %}<th class="text">Model</th>{% endif %}<th class="text">Condition</th><th>n</th><th>AUC-ROC</th><th>− as is</th><th>Left to a human</th><th>− as is</th><th>Decisions changed</th></tr>
{% for row in summary.stress if row.condition in plain_conditions %}
<tr><td class="text">{{ row.task }}<small>{{ row.source }}</small></td>{% if several %}<td class="text name">{{ row.model }}</td>{% endif %}<td class="text">{{ row.condition }}</td><td>{{ row.studies }}<small>{{ row.positives }} positive</small></td>
{% for name in ("AUC-ROC", "AUC-ROC - as is", "deferred", "deferred - as is", "decisions changed") %}<td>{% if row.condition != plain_conditions[0] or name in ("AUC-ROC", "deferred") %}{{ num(row.figures[name]) }}{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
<details><summary>All figures of the curves</summary>
<div class="wide"><table class="dense">
<tr><th class="text">Task</th>{% if several %}<th class="text">Model</th>{% endif %}<th class="text">Condition</th><th>Degree</th><th>n</th><th>Affected</th><th>AUC-ROC</th><th>− as is</th><th>Left to a human</th><th>− as is</th><th>Decisions changed</th></tr>
{% for row in summary.stress if row.condition not in plain_conditions %}
<tr><td class="text">{{ row.task }}<small>{{ row.source }}</small></td>{% if several %}<td class="text name">{{ row.model }}</td>{% endif %}<td class="text">{{ row.condition }}</td><td>{{ "%g" | format(row.degree) }}</td><td>{{ row.studies }}</td><td>{{ row.affected }}</td>
{% for name in ("AUC-ROC", "AUC-ROC - as is", "deferred", "deferred - as is", "decisions changed") %}<td>{{ num(row.figures[name]) }}</td>{% endfor %}</tr>
{% endfor %}
</table></div></details>
{% else %}
<p>No source has studies on both sides of a task in split {{ subject.split }}: there is no AUC to follow.</p>
{% endif %}
{% endif %}

{% if gallery %}
<h2>Gallery</h2>
<p>{% if gallery | length < case_count %}{{ gallery | length }} of {{ case_count }} cases, evenly spread over their order{% else %}All cases{% endif %} by rising agreement (mean rank correlation over all pairs of maps of a case){% if not has_agreement %}; with a single map a case there is none, and the order is that of the names{% endif %}.
{% if marked %}The blue outline is what readers marked. {% endif %}Heat is drawn on each method’s own scale and never stretched to its own peak: a weak map looks weak.</p>
<ul class="quiet">{% for method, meaning in subject.scale_meanings.items() %}<li>{{ method }}: {{ meaning }}</li>{% endfor %}</ul>
{% for item in gallery %}
<div class="case"><h3>{{ item.finding }} <code>{{ item.case.name }}</code></h3>
<p class="quiet">{{ item.case.group }}{% if item.agreement is not none %}, agreement {{ "%.2f" | format(item.agreement) | replace("-", "−") }}{% endif %}</p>
{% for row in item.rows %}
<p>{% if several %}<strong>{{ row.model }}</strong>: {% endif %}{{ item.finding }} {{ row.said }}</p>
<div class="tiles">
{% for tile in ([item.image] if loop.first else []) + row.tiles %}
<figure><img alt="{{ tile.title }}: {{ item.finding }}" src="data:image/jpeg;base64,{{ tile.picture | jpeg }}"><figcaption><strong>{{ tile.title }}</strong>{% for note in tile.notes %}<br>{{ note }}{% endfor %}</figcaption></figure>
{% endfor %}
</div>
{% endfor %}</div>
{% endfor %}
{% endif %}

<h2>What was validated</h2>
<table>
{% for model in subject.models %}
<tr><td class="text">Model</td><td class="text">{{ model.title }} ({{ model.name }})<br><code>SHA-256 {{ model.sha256 }}</code><br>Licence of the weights: {{ model.licence }}{% for text in model.cautions %}<br>{{ text }}{% endfor %}</td></tr>
{% endfor %}
<tr><td class="text">Manifest</td><td class="text">{{ subject.manifest }}, split {{ subject.split }}; studies of train are never scored<br><code>SHA-256 {{ subject.manifest_sha256 }}</code></td></tr>
<tr><td class="text">Marks</td><td class="text">{{ subject.marks | join(", ") or "none" }}</td></tr>
<tr><td class="text">Methods</td><td class="text">{{ subject.methods | join(", ") }}</td></tr>
<tr><td class="text">Checks</td><td class="text">{{ subject.checks | join(", ") or "none but localization and agreement" }}</td></tr>
<tr><td class="text">Bootstrap</td><td class="text">{{ subject.resamples }} resamples of patients, 2.5 % to 97.5 %; seed {{ subject.seed }}</td></tr>
<tr><td class="text">Took</td><td class="text">{{ subject.seconds }} s{% if subject.resumed %}, and {{ subject.resumed }} pieces were there from before{% endif %}</td></tr>
</table>
<p class="quiet">{{ notice }}</p>
</body>
</html>
"""
)
