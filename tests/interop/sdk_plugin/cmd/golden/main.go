// Prints, in the SDK's own encoding, the answers of the plugin: one JSON object, scenario name -> array of frames. With an argument,
// the frames' refId (the SDK puts the key of the response there).
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"dpa.test/sdkplugin/frames"
)

func main() {
	refID := "A"
	if len(os.Args) > 1 {
		refID = os.Args[1]
	}
	if err := print(refID); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func print(refID string) error {
	golden := map[string][]json.RawMessage{}
	for _, scenario := range frames.Scenarios {
		made, err := frames.For(scenario)
		if err != nil {
			return err
		}
		for _, frame := range made {
			frame.RefID = refID
			text, err := json.Marshal(frame)
			if err != nil {
				return err
			}
			golden[scenario] = append(golden[scenario], text)
		}
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(golden)
}
