"""The report as a Jinja template; everything put into it is escaped."""

# ruff: noqa: E501 - markup

STYLE = """body { font: 15px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #1c1c1e; background: #fff;
  margin: 2rem auto; max-width: 78rem; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0 0 .8rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 52rem; } .quiet { color: #5f6368; font-size: .9rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: .6rem 0 1rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #dadce0; text-align: right; vertical-align: top; }
th { font-weight: 600; border-bottom: 2px solid #80868b; vertical-align: bottom; }
th.text, td.text { text-align: left; } td small { display: block; color: #5f6368; white-space: nowrap; }
.dense { font-size: .8rem; } .dense th, .dense td { padding: .25rem .3rem; } .dense small { font-size: .7rem; } .first { font-size: 1.05rem; }
.warn { background: #fff4e0; border-left: 4px solid #e69f00; padding: .5rem .8rem; max-width: 52rem; }
.confounded { background: #f5f5f5; border-left: 4px solid #9aa0a6; padding: .2rem 1rem .6rem; margin-top: 2.4rem; }
.confounded h2 { margin-top: .6rem; } img { max-width: 100%; height: auto; display: block; }
figure { margin: 0 0 1.4rem; } figcaption { font-size: .9rem; margin: .2rem 0; }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(30rem, 1fr)); gap: 1rem; }
ul { max-width: 52rem; } code { font-size: .85em; overflow-wrap: anywhere; }
"""
"""How the pages of evaluation and validation look."""

MACROS = """{% macro num(figure) %}{{ figure | value }}{% if figure | interval %}<small>{{ figure | interval }}</small>{% endif %}{% endmacro %}
{% macro plot(svg, alt) %}{% if svg %}<figure><img alt="{{ alt }}" src="data:image/svg+xml;base64,{{ svg | b64 }}"></figure>{% endif %}{% endmacro %}
"""
"""`num`: a figure and its interval below; `plot`: an SVG as a picture."""

TEMPLATE = (
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation of {{ subject.model }} {{ subject.version }} on {{ subject.split }}</title>
<style>
"""
    + STYLE
    + """</style>
</head>
<body>
"""
    + MACROS
    + """<h1>{{ subject.model }} {{ subject.version }} on {{ subject.split }}</h1>
<table class="first">
<tr><th class="text">Disease</th>{% for name in headline %}<th>{{ heading[name] }}</th>{% endfor %}<th>Studies</th><th class="text">Compared within</th></tr>
{% for row in summary.by_disease %}
<tr><td class="text">{{ row.label }}</td>
{% for name in headline %}<td>{% if row.figures %}{{ num(row.figures[name]) }}{% else %}not measured{% endif %}</td>{% endfor %}
<td>{{ row.studies }}<small>{{ row.positives }} positive</small></td>
<td class="text"><small>{% for task in row.tasks %}{{ task }}<br>{% else %}no source has it beside something else{% endfor %}</small></td></tr>
{% endfor %}
</table>
<p class="quiet">Each disease against the others inside one source, at the model's operating point, with 95 % bootstrap intervals over
patients; where a disease has several sources, the unweighted mean over them.</p>
<p class="warn"><strong>{{ notice }}</strong>
{% if subject.split == "val" %} The model's calibration and operating points were chosen on these studies: the figures are too good.{% endif %}
{% if subject.split == "train" %} The model was trained on these studies: the figures say nothing about new ones.{% endif %}</p>
<h2>What to know before quoting a figure</h2>
<ul>{% for text in summary.cautions %}<li>{{ text }}</li>{% endfor %}</ul>

<h2>Each disease within its source</h2>
<div class="wide"><table class="dense">
<tr><th class="text">Task</th><th>n</th><th>Preva&shy;lence</th>{% for name in names %}<th>{{ name }}{% if name == "sensitivity" %} (recall){% endif %}</th>{% endfor %}</tr>
{% for row in summary.within_source %}
<tr><td class="text">{{ row.task }}<small>{{ row.source }}, {{ row.patients }} patients</small>
<small>threshold {{ "%.2f" | format(row.thresholds[0]) }}{% if row.thresholds[1] != row.thresholds[0] %} to {{ "%.2f" | format(row.thresholds[1]) }}{% endif %}</small></td>
<td>{{ row.studies }}</td><td>{{ "%.2f" | format(row.prevalence) }}</td>
{% for name in names %}<td>{{ num(row.figures[name]) }}</td>{% endfor %}</tr>
{% endfor %}
{% if summary.within_source | length > 1 %}
<tr><td class="text"><strong>mean over the tasks</strong></td><td>{{ summary.overall.studies }}</td><td></td>
{% for name in names %}<td>{{ num(summary.overall.figures[name]) }}</td>{% endfor %}</tr>
{% endif %}
</table></div>
<h3>ROC curves</h3>
<p class="quiet">The dot is the operating point.</p>
{{ plot(plots.roc, "ROC curves by task") }}
<h3>Precision and recall</h3>
<p class="quiet">The gray line is the prevalence: the precision of guessing.</p>
{{ plot(plots.precision_recall, "Precision-recall curves by task") }}
<h3>Calibration</h3>
<p class="quiet">Observed share against probability in ten bins; dots and numbers tell how many studies a bin holds.</p>
{{ plot(plots.reliability, "Reliability diagrams by task") }}
<h3>Decisions</h3>
{{ plot(plots.confusion, "Confusion matrices by task") }}

<h2>What each input adds</h2>
<p>The same model shown the image alone, the clinical values alone, and both. {{ subject.hidden_image }}</p>
<div class="wide"><table>
<tr><th class="text">Task</th><th>n</th><th>with values</th><th>AUC fused</th><th>image only</th><th>clinical only</th><th>fused − image only</th><th>fused − clinical only</th><th class="text">Verdict</th></tr>
{% for row in summary.ablation %}
<tr><td class="text">{{ row.task }}<small>{{ row.source }}</small></td><td>{{ row.studies }}</td><td>{{ row.with_values }}</td>
<td>{{ num(row.auc["fused"]) }}</td><td>{{ num(row.auc["image only"]) }}</td><td>{{ num(row.auc["clinical only"]) }}</td>
<td>{{ num(row.differences["fused - image only"]) }}</td><td>{{ num(row.differences["fused - clinical only"]) }}</td>
<td class="text">{% if row.with_values == 0 %}no clinical values to fuse{% elif row.fusion_adds_nothing %}fusion adds nothing that can be shown{% else %}fusion adds{% endif %}</td></tr>
{% endfor %}
</table></div>

{% if summary.shortcuts %}
<h2>What can be had without the picture</h2>
<p>Simple models on facts beside the picture, fitted on train. The network's figures mean something only above these.</p>
<div class="wide"><table>
<tr><th class="text">Facts</th><th class="text">Task</th><th>n</th><th>AUC-ROC</th><th>Accuracy</th><th>Model − shortcut</th></tr>
{% for row in summary.shortcuts %}
<tr><td class="text">{{ row.shortcut }}</td><td class="text">{{ row.task }}<small>{{ row.source }}</small></td><td>{{ row.studies }}</td>
<td>{% if "AUC-ROC" in row.figures %}{{ num(row.figures["AUC-ROC"]) }}{% endif %}</td><td>{{ num(row.figures["accuracy"]) }}</td>
<td>{% if "AUC-ROC" in row.figures %}{{ num(row.figures["model's AUC-ROC - shortcut's"]) }}{% else %}{{ num(row.figures["model's accuracy - shortcut's"]) }}{% endif %}</td></tr>
{% endfor %}
</table></div>
<p class="quiet">Differences are in AUC-ROC, for the likeliest finding in accuracy.</p>
{% endif %}

{% if summary.severity %}
<h2>Severity</h2>
<div class="wide"><table>
<tr><th class="text">Rater</th><th class="text">Against</th><th>n</th>{% for name in summary.severity[0].figures %}<th>{{ name }}{% if name == "MAE" %}, points{% endif %}</th>{% endfor %}</tr>
{% for row in summary.severity %}
<tr><td class="text">{% if row.rater in shown %}model, {% endif %}{{ row.rater }}</td><td class="text">{{ row.reference }}</td><td>{{ row.studies }}</td>
{% for figure in row.figures.values() %}<td>{{ num(figure) }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{{ plot(plots.severity, "Severity of the model and of the second reader against the reference") }}
{% endif %}

{% if summary.localization %}
<h2>Where the heat maps lie</h2>
<p>Against what readers marked. Pointing game: the hottest place lies inside the marks. IoU: with the part of the map above the given
share of its own peak, chosen on val. Relevance mass: share of the whole map inside the marks; an even map would reach the marked area.</p>
{% if subject.split == "val" %}<p class="warn">The threshold of the IoU was chosen on these images.</p>{% endif %}
<div class="wide"><table>
<tr><th class="text">Marks</th><th class="text">Finding</th><th class="text">Rater</th><th>Images</th><th>Marked area</th><th>Pointing game</th><th>− blob</th><th>IoU</th><th>at</th><th>Relevance mass</th></tr>
{% for row in summary.localization %}
<tr><td class="text">{{ row.group }}</td><td class="text">{{ row.label }}</td><td class="text">{{ row.rater }}</td><td>{{ row.images }}</td>
<td>{{ "%.2f" | format(row.area) }}</td><td>{{ num(row.figures["pointing game"]) }}</td>
<td>{% if "pointing game - blob's" in row.figures %}{{ num(row.figures["pointing game - blob's"]) }}{% endif %}</td>
<td>{% if "IoU" in row.figures %}{{ num(row.figures["IoU"]) }}{% endif %}</td><td>{% if row.threshold is not none %}{{ "%.2f" | format(row.threshold) }}{% endif %}</td>
<td>{{ num(row.figures["relevance mass"]) }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
{% if summary.randomization %}
<h3>Do the maps depend on what was learned?</h3>
<p>Rank correlation of the maps before and after the weights of a part of the network are shuffled; near 0 is right, near 1 means that the map
shows the image and not the model.</p>
<table>
<tr><th class="text">Shuffled</th><th>Maps</th><th>Empty afterwards</th><th>Rank correlation</th></tr>
{% for row in summary.randomization %}
<tr><td class="text">{{ row.stage }}</td><td>{{ row.maps }}</td><td>{{ row.vanished }}</td><td>{{ num(row.similarity) }}</td></tr>
{% endfor %}
</table>
{% endif %}

<h2>Leaving the least certain to a human</h2>
<p class="quiet">Certainty is the highest probability of a study; where its findings contradict each other it comes after all others.</p>
<div class="wide"><table>
<tr><th class="text">Task</th>{% for name in summary.selective[0].figures if summary.selective %}<th>{{ name }}</th>{% endfor %}<th class="text">As deferred</th></tr>
{% for row in summary.selective %}
<tr><td class="text">{{ row.task }}<small>{{ row.source }}</small></td>{% for figure in row.figures.values() %}<td>{{ num(figure) }}</td>{% endfor %}<td class="text">{{ row.verdict }}</td></tr>
{% endfor %}
</table></div>
{{ plot(plots.risk_coverage, "Risk-coverage curves by task") }}

{% if summary.sets %}
<h2>Which findings cannot be excluded</h2>
<p>A prediction set of coverage 90 % should hold the true finding in 90 % of the studies that have it, finding by finding. Of studies
whose label is no finding, such as benign, nothing is said. Where studies of one patient are alike, counts scatter more than the binomial
interval tells; the intervals of the figures are over patients.</p>
<div class="wide"><table>
<tr><th>Nominal</th><th class="text">True finding</th><th>Studies</th><th>Patients</th><th>Empirical coverage</th><th>Binomial interval</th><th></th><th>Mean set size</th><th>Empty sets</th></tr>
{% for row in summary.sets %}
<tr><td>{{ "%.0f" | format(100 * row.coverage) }} %</td><td class="text">{{ row.label or "all of them" }}</td><td>{{ row.studies }}</td><td>{{ row.patients }}</td>
<td>{{ num(row.figures["empirical coverage"]) }}</td><td>{{ "%.3f to %.3f" | format(*row.binomial) }}</td><td>{{ "within" if row.within else "outside" }}</td>
<td>{{ num(row.figures["mean set size"]) }}</td><td>{{ num(row.figures["empty sets"]) }}</td></tr>
{% endfor %}
</table></div>
{% endif %}

{% if summary.subgroups %}
<h2>Subgroups</h2>
<p class="quiet">Groups with fewer than {{ least }} studies on either side are listed but not scored. Differences are taken from the largest group.</p>
<div class="wide"><table class="dense">
<tr><th class="text">Task</th><th class="text">Group</th><th>n</th><th>positive</th>{% for name in scored %}<th>{{ name }}</th>{% endfor %}<th class="text">Compared with</th>{% for name in scored %}<th>Δ {{ name }}</th>{% endfor %}</tr>
{% for row in summary.subgroups %}
<tr><td class="text">{{ row.task }}<small>{{ row.sources | join(", ") }}</small></td><td class="text">{{ row.attribute }}: {{ row.group }}</td><td>{{ row.studies }}</td><td>{{ row.positives }}</td>
{% for name in scored %}<td>{% if row.figures %}{{ num(row.figures[name]) }}{% else %}too few{% endif %}</td>{% endfor %}
<td class="text">{{ row.reference or "" }}</td>{% for name in scored %}<td>{% if row.differences %}{{ num(row.differences[name]) }}{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endif %}

<div class="confounded">
<h2>Across sources: confounded, not to be quoted as skill</h2>
<p>Over all {{ summary.across.studies }} studies at once. Telling a breast ultrasound from a leg is easy, and where each source has its own diseases, knowing the
source is half the answer: see the row “source alone” above.</p>
<table>
<tr><th class="text">Figure</th><th>Value</th></tr>
{% for name, figure in summary.across.figures.items() %}<tr><td class="text">{{ name }}</td><td>{{ num(figure) }}</td></tr>{% endfor %}
</table>
{{ plot(plots.across, "Likeliest finding by manifest label") }}
</div>

{% if plots.learning %}
<h2>Learning curves</h2>
{{ plot(plots.learning, "Training log by epoch") }}
{% endif %}

{% if pictures %}
<h2>Best and worst cases</h2>
<p class="quiet">For each task the surest hit, the worst miss and the worst false alarm.</p>
<div class="cases">
{% for case, picture in pictures %}
<figure><figcaption><strong>{{ case.kind }}</strong>: {{ case.task }}, {{ case.source }}. Label {{ case.label }}, {{ case.finding }}
{{ "%.2f" | format(case.probability) }} (threshold {{ "%.2f" | format(case.threshold) }}). <code>{{ case.image }}</code></figcaption>
<img alt="{{ case.kind }}: {{ case.finding }}" src="data:image/jpeg;base64,{{ picture }}"></figure>
{% endfor %}
</div>
{% endif %}

<h2>What was evaluated</h2>
<table>
<tr><td class="text">Model</td><td class="text">{{ card.title }} ({{ subject.model }} {{ subject.version }})<br><code>SHA-256 {{ subject.sha256 }}</code></td></tr>
<tr><td class="text">Licence of the weights</td><td class="text">{{ card.weights_licence }}</td></tr>
<tr><td class="text">What its card warns of</td><td class="text">{% for text in card.cautions %}{{ text }}<br>{% endfor %}</td></tr>
<tr><td class="text">Manifest</td><td class="text">{{ subject.manifest }}, split {{ subject.split }}<br><code>SHA-256 {{ subject.manifest_sha256 }}</code></td></tr>
<tr><td class="text">Bootstrap</td><td class="text">{{ subject.resamples }} resamples of patients, 2.5 % to 97.5 %</td></tr>
<tr><td class="text">Took</td><td class="text">{{ subject.seconds }} s</td></tr>
</table>
<p class="quiet">{{ notice }}</p>
</body>
</html>
"""
)
