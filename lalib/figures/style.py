"""How all figures look: colours, shapes, legends, layout."""

import plotly.graph_objects as go

# Okabe and Ito's eight (grey in place of black, which is the colour of outlines and text), wine and brown.
COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"),  # blue, orange, green, vermillion, purple
    *("#56B4E9", "#882255", "#F0E442", "#8C8C8C", "#6B4A1B"),  # sky blue, wine, yellow, grey, brown
)
# One fewer than the colours: the pair of colour and shape repeats only after 90 groups.
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "star", "pentagon")
INK, GREY = "#222222", "#777777"
HEAD = {"orientation": "h", "x": 1, "xanchor": "right", "yanchor": "bottom"}  # legends: a row above or below the axes
FOOT = {"orientation": "h", "x": 0.5, "xanchor": "center", "y": 0, "yanchor": "bottom", "yref": "container"}
SHARE_BUTTONS = ["sendChartToCloud", "sendDataToCloud"]  # plotly 7's and 6's name: they send data to a public service


def colour(group: int) -> str:
    """The colour of a class, cluster or curve."""
    return COLOURS[group % len(COLOURS)]


def symbol(group: int) -> str:
    """The marker shape that goes with colour(group)."""
    return SYMBOLS[group % len(SYMBOLS)]


def heading(title: str, subtitle: str = "") -> str:
    """A title with a smaller grey line under it."""
    return f'{title}<br><span style="font-size:13px;color:#555555">{subtitle}</span>' if subtitle else title


def apply_layout(fig: go.Figure, title: str, subtitle: str = "", *, width: int, height: int, **layout) -> go.Figure:
    """White background, readable type, room for the title, no button that shares data; returns `fig`."""
    top = 30 if subtitle else 16  # plotly aligns the first line's foot, not its head, when there are two
    place = {"x": 0.0, "xref": "container", "xanchor": "left", "y": 1.0, "yref": "container", "yanchor": "top"}
    place |= {"text": heading(title, subtitle), "font": {"size": 17}, "pad": {"l": 16, "t": top}}
    look = {"template": "plotly_white", "font": {"size": 13, "color": INK}, "modebar": {"remove": SHARE_BUTTONS}}
    margin = {"l": 64, "r": 24, "t": 84 if subtitle else 56, "b": 56}
    fig.update_layout(title=place, width=width, height=height, margin=margin, **look)
    return fig.update_layout(layout)
