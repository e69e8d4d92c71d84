// Prints, in the SDK's own encoding, the answers of the plugin: one JSON object, scenario name -> array of frames. With an argument,
// the frames' refId (the SDK puts the key of the response there).
package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"dpa.test/sdkplugin/frames"
)

func main() {
	refID := "A"
	if len(os.Args) > 1 {
		refID = os.Args[1]
	}
	text, err := golden(refID)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(text)
}

// golden puts the object together by hand: encoding/json would write a second time, in its own manner, what the SDK has written.
func golden(refID string) (string, error) {
	var out bytes.Buffer
	for i, scenario := range frames.Scenarios {
		made, err := frames.For(scenario)
		if err != nil {
			return "", err
		}
		out.WriteString(separator(i, "{"))
		fmt.Fprintf(&out, "%q:", scenario)
		for j, frame := range made {
			frame.RefID = refID
			text, err := data.FrameToJSON(frame, data.IncludeAll)
			if err != nil {
				return "", err
			}
			out.WriteString(separator(j, "["))
			out.Write(text)
		}
		out.WriteString("]")
	}
	out.WriteString("}")
	return out.String(), nil
}

func separator(index int, first string) string {
	if index == 0 {
		return first
	}
	return ","
}
