// Package frames makes the answers of the test plugin: for each scenario the same frames on every call, so that what arrives
// through the proxy can be compared with what the SDK itself prints.
package frames

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
)

// Scenarios lists the names that For knows.
var Scenarios = []string{"alltypes", "timeseries", "empty", "nofields", "strings", "many"}

// For returns the frames of a scenario. An empty name means alltypes.
func For(scenario string) (data.Frames, error) {
	switch scenario {
	case "", "alltypes":
		return data.Frames{allTypes()}, nil
	case "timeseries":
		return timeSeries(), nil
	case "empty":
		return data.Frames{data.NewFrame("empty", data.NewField("value", nil, []float64{}))}, nil
	case "nofields":
		return data.Frames{data.NewFrame("nofields")}, nil
	case "strings":
		return data.Frames{awkwardStrings()}, nil
	case "many":
		return data.Frames{manyRows(10_000)}, nil
	}
	return nil, fmt.Errorf("unknown scenario %q", scenario)
}

func ptr[T any](value T) *T { return &value }

// twice adds a field of four values and its nullable twin, whose second value is null.
func twice[T any](frame *data.Frame, name string, a, b, c, d T) {
	frame.Fields = append(frame.Fields,
		data.NewField(name, nil, []T{a, b, c, d}),
		data.NewField(name+"_nullable", nil, []*T{&a, nil, &c, &d}))
}

func allTypes() *data.Frame {
	frame := data.NewFrame("every type")
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	twice(frame, "time", start, start.Add(123456789*time.Nanosecond), time.Unix(0, -1).UTC(), time.Unix(-1, 500).UTC())
	twice[int8](frame, "int8", math.MinInt8, 1, 42, math.MaxInt8)
	twice[int16](frame, "int16", math.MinInt16, 1, 42, math.MaxInt16)
	twice[int32](frame, "int32", math.MinInt32, 1, 42, math.MaxInt32)
	twice[int64](frame, "int64", math.MinInt64, 1, 42, math.MaxInt64)
	twice[uint8](frame, "uint8", 0, 1, 42, math.MaxUint8)
	twice[uint16](frame, "uint16", 0, 1, 42, math.MaxUint16)
	twice[uint32](frame, "uint32", 0, 1, 42, math.MaxUint32)
	twice[uint64](frame, "uint64", 0, 1, 42, math.MaxUint64)
	twice(frame, "float32", float32(0.1), float32(math.NaN()), float32(math.Inf(-1)), float32(math.MaxFloat32))
	twice(frame, "float64", 1e-7, math.NaN(), math.Inf(1), math.Inf(-1))
	twice(frame, "float64_digits", math.Copysign(0, -1), 1e21, 123456789012345680000.0, 5e-324)
	twice(frame, "string", "plain", "", "<b>&\"\\\n\u2028😀", "café")
	twice(frame, "bool", true, false, false, true)
	twice(frame, "json", json.RawMessage(`{"a":[1,2.5,null]}`), json.RawMessage(`null`), json.RawMessage(`[ 1, 2 ]`), json.RawMessage(`"text"`))
	twice[data.EnumItemIndex](frame, "enum", 0, 1, 2, 1)
	decorate(frame)
	return frame
}

func decorate(frame *data.Frame) {
	for _, field := range frame.Fields {
		switch field.Name {
		case "enum", "enum_nullable":
			field.Config = &data.FieldConfig{TypeConfig: &data.FieldTypeConfig{
				Enum: &data.EnumFieldConfig{Text: []string{"low", "middle", "high"}}}}
		case "float64":
			field.Labels = data.Labels{"host": "web-1", "a \"quoted\" key": "<value>"}
			field.Config = (&data.FieldConfig{DisplayName: "Load & more", Unit: "percent", Decimals: ptr(uint16(2))}).
				SetMin(0).SetMax(math.Inf(1))
		case "string":
			field.Labels = data.Labels{}
		}
	}
	frame.Meta = &data.FrameMeta{
		Type:                   data.FrameTypeTable,
		TypeVersion:            data.FrameTypeVersion{0, 1},
		Custom:                 map[string]any{"note": "a < b & c", "rows": 4},
		Notices:                []data.Notice{{Severity: data.NoticeSeverityWarning, Text: "made up", Link: "https://example.org/?a=1&b=2"}},
		PreferredVisualization: data.VisTypeTable,
		ExecutedQueryString:    "SELECT * FROM everything",
		Stats:                  []data.QueryStat{{FieldConfig: data.FieldConfig{DisplayName: "rows", Unit: "short"}, Value: 4}},
	}
}

// Two series as most plugins answer them: one frame each, the labels on the value.
func timeSeries() data.Frames {
	var frames data.Frames
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, host := range []string{"a", "b"} {
		times := make([]time.Time, 60)
		values := make([]float64, 60)
		for i := range times {
			times[i] = start.Add(time.Duration(i) * time.Second)
			values[i] = math.Sin(float64(i)/10) * 100
		}
		frame := data.NewFrame("cpu", data.NewField("time", nil, times), data.NewField("value", data.Labels{"host": host}, values))
		frame.Meta = &data.FrameMeta{Type: data.FrameTypeTimeSeriesMulti, TypeVersion: data.FrameTypeVersion{0, 1}}
		frames = append(frames, frame)
	}
	return frames
}

func awkwardStrings() *data.Frame {
	return data.NewFrame("name with \"quotes\", <tags> & \\ and \t",
		data.NewField("é <field>", data.Labels{"ключ": "значение \"x\""}, []string{
			"\u0000\u0001\u001f", "\x7f", "line\nbreak\r\t", "\u2028\u2029", "/slash/", "\U0001F469\u200d\U0001F680", "{\"a\":1}", ""}))
}

func manyRows(rows int) *data.Frame {
	times := make([]time.Time, rows)
	values := make([]*float64, rows)
	for i := range times {
		times[i] = time.UnixMilli(1767225600000 + int64(i)*15000).UTC()
		if i%10 != 0 {
			values[i] = ptr(float64(i) / 3)
		}
	}
	return data.NewFrame("many", data.NewField("time", nil, times), data.NewField("value", nil, values))
}
